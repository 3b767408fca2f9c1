"""The data-set folder: its files, its card, its manifest, and its publication in one go."""

import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from curate import quality, record, report
from curate.audit import labels
from curate.console import listed
from curate.errors import os_error
from curate.files import exists, read_json, sha256, write_json, write_text
from curate.folds import Ledger
from curate.record import Dropped, Passage, Row

MANIFEST = "manifest.json"
ANNOTATE = "annotate"


@dataclass
class DataSet:
    """What a data-set folder holds."""

    manifest: dict[str, Any]
    splits: dict[str, list[Row]]
    contrast: list[Row]
    doubtful: list[Row]  # for people to label
    passages: list[Passage]
    dropped: list[Dropped]
    ledger: Ledger


def publish(out: Path, workspace: Path, made: DataSet) -> None:
    """Write every file into the workspace first, then move them to ``out``, the manifest last.

    A full disk is thus met before a finished data set is touched, and a folder whose manifest
    names the hashes of its files is whole.
    """
    final = workspace / "final"
    manifest = made.manifest
    try:
        shutil.rmtree(final, ignore_errors=True)
        final.mkdir()
    except OSError as error:
        raise os_error("write", final, error) from error
    for name, rows in (made.splits | {"contrast": made.contrast, ANNOTATE: made.doubtful}).items():
        record.write_table(record.to_table(rows), final / f"{name}.parquet")
    record.write_table(record.passages_to_table(made.passages), final / "passages.parquet")
    record.write_table(record.dropped_to_table(made.dropped), final / "dropped.parquet")
    write_json(final / "folds.json", {"version": 1, "documents": made.ledger})
    _describe(final, made, labels.of(out, made.splits))
    manifest["versions"] = {
        name: metadata.version(name) for name in ("grounded-abstain", "ftfy", "bm25s", "pyarrow")
    }
    manifest["files"] = {file.name: sha256(file) for file in sorted(final.iterdir())}
    write_json(final / MANIFEST, manifest)
    try:
        (out / MANIFEST).unlink(missing_ok=True)
        for file in sorted(final.iterdir(), key=lambda file: file.name == MANIFEST):
            file.replace(out / file.name)
        if "stream" not in made.splits:  # of an earlier build that had one
            (out / "stream.parquet").unlink(missing_ok=True)
        shutil.rmtree(workspace)
    except OSError as error:
        raise os_error("write", out, error) from error


def _describe(folder: Path, made: DataSet, judged: list[labels.Judgement]) -> None:
    """Judge what was made, into its manifest, and write its card and report."""
    manifest = made.manifest
    manifest["quality"] = quality.quality(made.splits, judged, made.dropped)
    files = (sha256(folder / f"{name}.parquet") for name in (*made.splits, "contrast"))
    write_text(folder / "README.md", card(made, record.digest(*files)))
    write_text(folder / "report.html", report.render(manifest, made.splits, made.dropped))


def refresh(out: Path) -> dict[str, Any]:
    """Judge a finished folder again, labels judged since then too; returns its manifest.

    Report, card and manifest are written anew, and nothing else.
    """
    manifest = read_json(out / MANIFEST)
    splits = {fold: record.read_fold(out, fold) for fold in manifest["splits"]}
    contrast = record.read_fold(out, "contrast")
    table = record.read_table(out / "dropped.parquet", record.DROPPED_SCHEMA)
    dropped = record.dropped_from_table(table)
    # The other files are told of nowhere.
    made = DataSet(manifest, splits, contrast, [], [], dropped, {})
    _describe(out, made, labels.of(out, splits))
    for name in ("README.md", "report.html"):
        manifest["files"][name] = sha256(out / name)
    write_json(out / MANIFEST, manifest)
    return dict(manifest)


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


def card(made: DataSet, content: str) -> str:
    """The data-set card; its front matter lets `datasets.load_dataset(folder)` read the splits.

    `datasets` takes a folder that it has read before from its cache unless the front matter is
    another one, whatever the files hold: ``content``, a hash of them, is therefore part of it.
    """
    manifest, splits = made.manifest, made.splits
    rows = [row for members in splits.values() for row in members]
    licences = sorted({part for row in rows for part in row.licence.split(" AND ") if part})
    front: dict[str, Any] = {
        "pretty_name": manifest["name"],
        "task_categories": ["question-answering"],
        "language": sorted({row.language for row in rows}),
        "license": "other",
        "license_name": ", ".join(licences) or "unknown",
        "configs": [
            {
                "config_name": "default",
                "description": f"content {content}",
                # An empty split has no rows to read, and `datasets` refuses it.
                "data_files": [
                    {"split": fold, "path": f"{fold}.parquet"} for fold in splits if splits[fold]
                ],
            }
        ],
    }
    if made.contrast:
        front["configs"].append(
            {
                "config_name": "contrast",
                "description": f"content {content}",
                "data_files": "contrast.parquet",
            }
        )
    lines = ["| split | rows | sufficient | insufficient | reasons |", "|---|---|---|---|---|"]
    for fold, counted in manifest["splits"].items():
        label = counted["label"]
        yes, no = label.get("sufficient", 0), label.get("insufficient", 0)
        lines.append(f"| {fold} | {yes + no} | {yes} | {no} | {listed(counted['reason'])} |")
    steps = ["| step | in | created | kept | dropped | why |", "|---|---|---|---|---|---|"]
    for step in manifest["steps"]:
        numbers = (step["rows_in"], step["created"], step["kept"], step["dropped"])
        why = listed(step["reasons"])
        steps.append(f"| {step['step']} | {' | '.join(map(str, numbers))} | {why} |")
    return f"""---
{yaml.safe_dump(front, allow_unicode=True, sort_keys=False).strip()}
---
# {manifest["name"]}

{manifest["description"]}

Questions with a context each, and a label: does the context hold the answer? Where it does not,
`reason` says why and `method` how the row came to be. Every document is in one split only.

## Splits
{chr(10).join(lines)}

## What it is worth
{chr(10).join(_worth(manifest["quality"]))}

## How it was made
{chr(10).join(steps)}

Made by `curate build`; the recipe and the hashes are in `manifest.json`, what was left out and
why in `dropped.parquet`. A derived row keeps its parent's source; its licence
names that of every passage that it borrows.
"""


def _worth(quality: dict[str, Any]) -> list[str]:
    """The card's sentences on labels, leaks and shortcuts."""
    labels = quality["accuracy"]["labels"]
    lines = [f"- Leaks between splits: {quality['leaks']['count']}."]
    lines += [
        f"- Label told by {found['features']}: AUROC {found['auroc']['value']:.3f} (0.5 is chance)."
        for found in quality["shortcuts"]
    ]
    lines += [
        f"- `{found['method']}`: {found['right']} of {found['judged']} labels that were judged "
        f"are right (95 %: {found['low']:.2f} to {found['high']:.2f})."
        for found in labels
        if found["judged"]
    ]
    return lines if labels else [*lines, "- Nobody has judged labels yet: `curate audit labels`."]
