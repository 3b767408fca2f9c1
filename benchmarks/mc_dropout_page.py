"""The page about MC dropout: its tables and what they say, from what the benchmark has measured."""

from collections.abc import Sequence
from typing import Any

from benchmarks.markdown import table
from curate.console import interval

GREEDY = "greedy"
KEYS = {"sufficient": "does the context suffice?", "correct": "is the answer right?"}


def document(found: dict[str, Any]) -> str:
    """Markdown: cost, agreement with ``full``, worth against label and rightness."""
    entries, most = found["settings"], found["reference_samples"]
    by_name = {entry["setting"]: entry for entry in entries}
    full, top = by_name[f"full T={most}"], by_name[f"top-k T={most}"]
    at_most = [e for e in entries if e["setting"].endswith(f"T={most}")]
    return (
        "# MC dropout: what it costs and what it is worth\n\n"
        "Made by `python -m benchmarks.mc_dropout RUN --data DIR --docs docs/mc_dropout.md`; do "
        "not edit.\n\n"
        f"{found['rows']} questions on {found['contexts']} contexts that the run was not trained "
        f"on, {found['answered']} of them answered. `top-k` is the highest {found['top_k']} "
        f"blocks. On {found['machine']}; all settings in turns over the same contexts.\n\n"
        f"With {most} masks `top-k` takes {top['ratio']:.2f} times as long as the greedy answer "
        f"alone, the answer included, and `full` {full['milliseconds'] / top['milliseconds']:.1f} "
        "times as long as `top-k`.\n\n"
        f"## Cost\n\n{_costs(entries)}\n\n"
        f"## Agreement with `full` of as many masks\n\n"
        f"Spearman's rank correlation of each signal, {most} masks.\n\n"
        f"{_agreement([e for e in at_most if e is not full])}\n\n"
        + "\n\n".join(
            f"## AUROC: {question}\n\n{_verdict(by_name[GREEDY], at_most, key)}\n\n"
            f"{_worths([by_name[GREEDY], *at_most], key)}"
            for key, question in KEYS.items()
        )
        + "\n"
    )


def _costs(entries: Sequence[dict[str, Any]]) -> str:
    lines = [(e["setting"], f"{e['milliseconds']:.0f}", f"{e['ratio']:.2f}×") for e in entries]
    return table(("setting", "ms an answer", "of greedy"), lines)


def _agreement(entries: Sequence[dict[str, Any]]) -> str:
    signals = list(entries[0]["signals"])
    lines = [
        (name, *(_plain(entry["signals"][name]["rank_correlation"]) for entry in entries))
        for name in signals
    ]
    return table(("signal", *(entry["setting"] for entry in entries)), lines)


def _verdict(greedy: dict[str, Any], entries: Sequence[dict[str, Any]], key: str) -> str:
    """Which signals beat what the model says without dropout, if any; chance takes its share."""
    plain = _best([(name, "", found[key]) for name, found in greedy["signals"].items()])
    best = _best(
        [(name, e["setting"], found[key]) for e in entries for name, found in e["signals"].items()]
    )
    if plain is None or best is None:
        return "All rows are of one kind, so that nothing can be told."
    changes = [
        (name, e["setting"].split(" T=")[0], found[f"{key}_less_plain"])
        for e in entries
        for name, found in e["signals"].items()
    ]
    known = [change for change in changes if change[2]["low"] is not None]
    better = [change for change in known if change[2]["low"] > 0]
    worse = [change for change in known if change[2]["high"] < 0]
    return (
        f"The best without dropout is `{plain[0]}`, {interval(plain[2])}; the best of MC dropout "
        f"`{best[0]}` ({best[1]}), {interval(best[2])}.\n\n"
        "*Less plain* is the difference from the same quantity, or for spreads and entropies the "
        "likelihood, without dropout (which may itself rank worse than chance): intervals of a "
        f"paired bootstrap over contexts. Of {len(known)} signals and scopes, {len(better)} are "
        f"better and {len(worse)} worse, each by its own 95 % interval; without any effect, "
        f"{len(known) / 40:.0f} of either would be expected. Better: {_grouped(better)}. Worse: "
        f"{_grouped(worse)}."
    )


def _best(found: list[tuple[str, str, Any]]) -> tuple[str, str, Any] | None:
    """Of signal, setting and AUROC the highest; None where none could be computed."""
    known = [each for each in found if each[2]["value"] is not None]
    return max(known, key=lambda each: float(each[2]["value"]), default=None)


def _grouped(changes: Sequence[tuple[str, str, Any]]) -> str:
    """Signals, each with the scopes in which it differs."""
    scopes: dict[str, list[str]] = {}
    for name, scope, _ in changes:
        scopes.setdefault(name, []).append(scope)
    return "; ".join(f"`{name}` ({', '.join(found)})" for name, found in scopes.items()) or "none"


def _worths(entries: Sequence[dict[str, Any]], key: str) -> str:
    lines = []
    for entry in entries:
        for name, found in entry["signals"].items():
            others = (found.get(f"{key}_less_{other}") for other in ("full", "plain"))
            lines.append((entry["setting"], name, interval(found[key]), *map(interval, others)))
    return table(("setting", "signal", "AUROC", "less full", "less plain"), lines)


def _plain(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "–"
