"""The data-set folder: its files, its card, its manifest, and its publication in one go."""

import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from curate import record, report
from curate.errors import os_error
from curate.files import exists, read_json, sha256, write_json, write_text
from curate.folds import Ledger
from curate.recipe import Recipe
from curate.record import Dropped, Passage, Row

MANIFEST = "manifest.json"


def publish(
    out: Path,
    workspace: Path,
    recipe: Recipe,
    manifest: dict[str, Any],
    splits: Mapping[str, list[Row]],
    passages: list[Passage],
    dropped: list[Dropped],
    ledger: Ledger,
) -> None:
    """Write every file into the workspace first, then move them to ``out``, the manifest last.

    A full disk is thus met before a finished data set is touched, and a folder whose manifest
    names the hashes of its files is whole.
    """
    final = workspace / "final"
    try:
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
    except OSError as error:
        raise os_error("write", final, error) from error
    for fold, rows in splits.items():
        record.write_table(record.to_table(rows), final / f"{fold}.parquet")
    record.write_table(record.passages_to_table(passages), final / "passages.parquet")
    record.write_table(record.dropped_to_table(dropped), final / "dropped.parquet")
    write_json(final / "folds.json", {"version": 1, "documents": ledger})
    write_text(final / "README.md", card(recipe, manifest, splits))
    write_text(final / "report.html", report.render(manifest, splits, dropped))
    manifest["versions"] = {
        name: metadata.version(name) for name in ("grounded-abstain", "ftfy", "bm25s", "pyarrow")
    }
    manifest["files"] = {file.name: sha256(file) for file in sorted(final.iterdir())}
    write_json(final / MANIFEST, manifest)
    try:
        (out / MANIFEST).unlink(missing_ok=True)
        for file in sorted(final.iterdir(), key=lambda file: file.name == MANIFEST):
            file.replace(out / file.name)
        if "stream" not in splits:  # of an earlier build that had one
            (out / "stream.parquet").unlink(missing_ok=True)
        shutil.rmtree(workspace)
    except OSError as error:
        raise os_error("write", out, error) from error


def is_complete(out: Path, fingerprint: str) -> bool:
    """Whether ``out`` holds the result of this very recipe, with every file as it was written."""
    if not exists(out / MANIFEST):
        return False
    manifest = read_json(out / MANIFEST)
    return bool(
        isinstance(manifest, dict)
        and manifest.get("fingerprint") == fingerprint
        and all(
            (out / name).exists() and sha256(out / name) == value
            for name, value in manifest["files"].items()
        )
    )


def card(recipe: Recipe, manifest: dict[str, Any], splits: Mapping[str, list[Row]]) -> str:
    """The data-set card; its front matter lets `datasets.load_dataset(folder)` read the splits."""
    rows = [row for members in splits.values() for row in members]
    licences = sorted({row.licence for row in rows if row.licence})
    front = {
        "pretty_name": recipe.name,
        "task_categories": ["question-answering"],
        "language": sorted({row.language for row in rows}),
        "license": "other",
        "license_name": ", ".join(licences) or "unknown",
        "configs": [
            {
                "config_name": "default",
                # An empty split has no rows to read, and `datasets` refuses it.
                "data_files": [
                    {"split": fold, "path": f"{fold}.parquet"} for fold in splits if splits[fold]
                ],
            }
        ],
    }
    lines = [
        "| split | rows | sufficient | insufficient | reasons |",
        "|---|---|---|---|---|",
    ]
    for fold, counted in manifest["splits"].items():
        label = counted["label"]
        yes, no = label.get("sufficient", 0), label.get("insufficient", 0)
        reasons = ", ".join(f"{name} {count}" for name, count in counted["reason"].items())
        lines.append(f"| {fold} | {yes + no} | {yes} | {no} | {reasons} |")
    steps = ["| step | in | created | kept | dropped | why |", "|---|---|---|---|---|---|"]
    for step in manifest["steps"]:
        why = ", ".join(f"{name} {count}" for name, count in step["reasons"].items())
        numbers = (step["rows_in"], step["created"], step["kept"], step["dropped"])
        steps.append(f"| {step['step']} | {' | '.join(map(str, numbers))} | {why} |")
    return f"""---
{yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip()}
---
# {recipe.name}

{recipe.description}

Questions with a context each, and a label: does the context hold the answer? Where it does not,
`reason` says why and `method` how the row came to be. Every document is in one split only.

## Splits
{chr(10).join(lines)}

## How it was made
{chr(10).join(steps)}

Made by `curate build`; the recipe and the hashes are in `manifest.json`, what was left out and
why in `dropped.parquet`. A derived row keeps its parent's source and licence.
"""
