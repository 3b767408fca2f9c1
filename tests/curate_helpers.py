"""What several tests of `curate` need: rows, source files, recipes, and the installed command."""

import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from helpers import run_command

from curate.dedup import context_id
from curate.insufficient.derive import Derived, derive
from curate.recipe import InsufficientSettings
from curate.record import DROPPED_SCHEMA as DROPPED
from curate.record import FOLDS, Dropped, Passage, Row, dropped_from_table, read_rows, read_table

ROOT = Path(__file__).resolve().parents[1]
# Real data that the project does not hold; tests that want it are skipped where it is absent.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


curate = functools.partial(run_command, "curate")


def make_row(
    question: str, context: str, answers: Iterable[str] = (), document: str = "d", **fields: Any
) -> Row:
    """A clustered and stamped row of train; with answers it is sufficient, and they are spans."""
    answers = list(answers)
    fields.setdefault("answer_starts", [context.find(answer) for answer in answers])
    fields.setdefault("source_id", f"{document}/{question}/{context}")
    fields.setdefault("sufficient", bool(answers))
    fields.setdefault("fold", "train")
    if fields["sufficient"] is False:
        fields.setdefault("reason", "unlabelled")
    return Row(
        question,
        context,
        answers=answers,
        document_id=document,
        context_id=context_id(context),
        source="test",
        **fields,
    ).stamped()


def stations(documents: int, contexts: int = 4, prefix: str = "North") -> dict[str, Any]:
    """A SQuAD file of that many documents, five questions a context, the last unanswerable."""
    data = []
    for d in range(documents):
        paragraphs = []
        for c in range(contexts):
            number, name = d * contexts + c, f"{prefix} {d}.{c}"
            context = (
                f"Station {name} has {number + 10} docks. It opened in {1900 + number % 120} "
                f"beside gate G{number}. Its keeper is called Keeper{number}."
            )
            asked = [
                ("How many docks has", f"{number + 10} docks"),
                ("In what year opened", f"{1900 + number % 120}"),
                ("Beside which gate lies", f"G{number}"),
                ("Who keeps", f"Keeper{number}"),
                ("Who built", None),
            ]
            questions = [
                {
                    "id": f"{prefix}-{d}-{c}-{q}",
                    "question": f"{words} station {name}?",
                    "is_impossible": answer is None,
                    "answers": []
                    if answer is None
                    else [{"text": answer, "answer_start": context.index(answer)}],
                }
                for q, (words, answer) in enumerate(asked)
            ]
            paragraphs.append({"context": context, "qas": questions})
        data.append({"title": f"{prefix}-{d}", "paragraphs": paragraphs})
    return {"version": "v2.0", "data": data}


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_recipe(path: Path, *sources: dict[str, Any], **settings: Any) -> Path:
    path.write_text(yaml.safe_dump({"name": "test", "sources": list(sources), **settings}))
    return path


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with the hash of its bytes."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def splits(folder: Path) -> dict[str, list[Row]]:
    """The rows of each split that a data-set folder has."""
    return {
        f: read_rows(folder / f"{f}.parquet") for f in FOLDS if (folder / f"{f}.parquet").exists()
    }


def dropped(folder: Path) -> list[Dropped]:
    """The rows that a build left out."""
    return dropped_from_table(read_table(folder / "dropped.parquet", DROPPED))


def derived_from(
    rows: list[Row],
    methods: Sequence[str] = ("no_context", "evidence_removed", "context_swapped"),
    share: float = 0.5,
    passages: Iterable[Passage] = (),
    seed: int = 1,
) -> Derived:
    """What `derive` makes of some rows."""
    chosen = InsufficientSettings.model_validate({"share": share, "methods": methods})
    return derive(rows, list(passages), chosen, seed)


def reasons(result: Derived) -> list[tuple[str, str]]:
    """Of each candidate that failed: the method, and why."""
    failed = [(d.row.method, d.drop_reason) for d in result.dropped]
    return failed + [(method, "no_candidate") for method in result.unmade.elements()]
