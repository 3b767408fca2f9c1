"""`curate generate llm`: the command. It imports what it needs, so that `--help` is instant."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate import console
from curate.console import json_option, seed_option

if TYPE_CHECKING:
    from curate.generate.llm.asking import Who
    from curate.generate.llm.passages import Source
    from curate.generate.llm.write import Wanted

_PATH = click.Path(path_type=Path)
_ADDRESS = "ADDRESS|local"


@click.command()
@click.argument("path", metavar="FILE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option(
    "--endpoint",
    required=True,
    metavar=_ADDRESS,
    help="Who writes: an OpenAI-compatible address ending in /v1, or the embedded model.",
)
@click.option("--model", default="", help="Its name there; the first that is listed by default.")
@click.option("--reader", metavar=_ADDRESS, help="Who verifies; the writer by default.")
@click.option("--reader-model", default="", help="Its name there.")
@click.option(
    "--pairs", type=click.IntRange(0, 20), default=3, show_default=True, help="Pairs a passage."
)
@click.option(
    "--unanswerable",
    type=click.IntRange(0, 20),
    default=2,
    show_default=True,
    help="Questions a passage that it does not answer.",
)
@click.option(
    "--reasons",
    default="evidence_missing,false_premise",
    show_default=True,
    help="Why it does not; also underspecified, out_of_scope.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many passages.")
@click.option(
    "--concurrency", type=click.IntRange(1), default=4, show_default=True, help="Requests at once."
)
@click.option(
    "--budget", type=click.IntRange(1), metavar="TOKENS", help="Spend no more, in all runs to OUT."
)
@click.option(
    "--prices",
    default=(0.0, 0.0),
    nargs=2,
    type=click.FloatRange(0),
    metavar="IN OUT",
    help="Dollars a million tokens read and written, for the estimate.",
)
@click.option("--dry-run", is_flag=True, help="Print the prompts and the estimate; ask nobody.")
@seed_option
@json_option
def llm(
    path: Path,
    out: Path,
    endpoint: str,
    reader: str | None,
    reader_model: str,
    limit: int | None,
    dry_run: bool,
    prices: tuple[float, float],
    as_json: bool,
    **options: Any,
) -> None:
    """Have a language model write questions on the passages of FILE, and verify each.

    FILE holds passages (curate scrape and import write OUT.passages.parquet) or rows, whose
    contexts are taken; a data-set folder gives its passages. The model writes questions with
    answers, and questions that the passage does not answer, for the reason asked for. A pair is
    kept where its answer stands in the passage and not in the question, where a reader finds the
    same answer, and does not find it without the passage. A question without an answer is kept
    where a reader abstains and a judge says that the passage does not suffice. All others lie in
    OUT.dropped.parquet with the reason.

    Every response is kept in OUT.responses.jsonl before it is read: a killed run goes on where it
    stopped, and pays for nothing twice. The key comes from the environment (OPENAI_API_KEY).

    \b
      curate generate llm help.passages.parquet --out written.parquet --endpoint local --limit 20
      curate generate llm help.parquet --out written.parquet --dry-run \\
          --endpoint https://api.example.org/v1 --model some-model --prices 0.15 0.60
    """
    from curate.generate.llm import estimate, passages

    wanted = _wanted(options)
    sources, short = passages.read(path, limit)
    asked = _requests(sources, wanted)
    about = estimate.of(asked)
    cost = estimate.Prices(*prices)
    told = {
        "passages": len(sources),
        "too_short": short,
        "requests": about.requests,
        "tokens": about.tokens,
        "cost": round(cost.cost(about.prompt, about.completion), 4),
    }
    line = (
        f"{told['passages']:,} passages ({short:,} too short to ask about): at most "
        f"{told['requests']:,} requests, about {about.prompt:,} tokens to read "
        f"and {about.completion:,} to write"
        + (f", {told['cost']:.2f} dollars" if any(prices) else "")
    )
    if dry_run:
        shown = [list(request.messages) for _, _, request in asked]
        prompts = "\n\n".join(message["content"] for asks in shown for message in asks)
        console.show({"estimate": told, "prompts": shown}, f"{prompts}\n\n{line}", as_json)
        return
    click.echo(line, err=True)
    with contextlib.ExitStack() as stack:
        writes = reads = _who(endpoint, options["model"], stack)
        if reader == endpoint:
            reads = replace(writes, model=reader_model or writes.model)
        elif reader is not None:
            reads = _who(reader, reader_model, stack)
        counts = _run(sources, wanted, writes, reads, out, options, cost)
    console.show(counts, _told(counts, out), as_json)


def _wanted(options: dict[str, Any]) -> "Wanted":
    from curate.generate.llm.prompts import KINDS
    from curate.generate.llm.write import Wanted

    reasons = tuple(name.strip() for name in options["reasons"].split(",") if name.strip())
    unknown = [name for name in reasons if name not in KINDS]
    if unknown or not reasons:
        raise click.BadParameter(
            f"'{', '.join(unknown)}': there are {', '.join(KINDS)}", param_hint="--reasons"
        )
    if not options["pairs"] and not options["unanswerable"]:
        raise click.UsageError("nothing to write: --pairs and --unanswerable are both 0")
    return Wanted(options["pairs"], options["unanswerable"], reasons, options["seed"])


def _requests(sources: "list[Source]", wanted: "Wanted") -> list[Any]:
    from curate.generate.llm import write

    numbered = enumerate(sources)
    return [one for number, source in numbered for one in write.requests(number, source, wanted)]


def _who(name: str, model: str, stack: contextlib.ExitStack) -> "Who":
    from curate.chat import Chat
    from curate.generate.llm import local
    from curate.generate.llm.asking import Who

    if name == local.NAME:
        return Who(stack.enter_context(local.serving()), local.MODEL, local.NAME)
    return Who(name, model or Chat(name).model)


def _run(
    sources: "list[Source]",
    wanted: "Wanted",
    writer: "Who",
    reader: "Who",
    out: Path,
    options: dict[str, Any],
    prices: Any,
) -> dict[str, Any]:
    import asyncio
    from collections import Counter

    from curate import record
    from curate.generate.llm import write
    from curate.generate.llm.asking import Spending
    from curate.generate.llm.responses import Responses

    responses = Responses(out.with_suffix(".responses.jsonl"))
    try:
        before = responses.paid
        spending = Spending(options["budget"], responses)
        written = asyncio.run(
            write.write(sources, wanted, writer, reader, spending, options["concurrency"])
        )
    finally:
        responses.close()
    record.write_table(record.to_table(written.rows), out)
    record.write_table(
        record.dropped_to_table(written.dropped), out.with_suffix(".dropped.parquet")
    )
    paid = responses.paid
    new = prices.cost(paid.prompt - before.prompt, paid.completion - before.completion)
    return {
        "written": len(written.rows) + len(written.dropped),
        "rows": len(written.rows),
        "sufficient": sum(bool(row.sufficient) for row in written.rows),
        "reasons": dict(Counter(row.reason for row in written.rows if row.reason)),
        "dropped": dict(Counter(one.drop_reason for one in written.dropped).most_common()),
        "failed": dict(written.failed),
        "faults": written.faults,
        "waiting": written.waiting,
        "requests": spending.requests,
        "reused": spending.reused,
        "tokens": paid.total - before.total,
        "cost": round(new, 6),
    }


def _told(counts: dict[str, Any], out: Path) -> str:
    share = counts["rows"] / counts["written"] if counts["written"] else 0.0
    lines = [
        f"{counts['written']:,} questions written, {counts['rows']:,} verified ({share:.0%}): "
        f"{counts['sufficient']:,} with answers; without: {console.listed(counts['reasons']) or 0}",
        f"dropped: {console.listed(counts['dropped']) or 'none'}",
        f"{counts['requests']:,} requests, {counts['reused']:,} answered from the file; "
        f"{counts['tokens']:,} tokens" + (f", {counts['cost']} dollars" if counts["cost"] else ""),
        *counts["faults"],
    ]
    if counts["waiting"]:
        lines.append(
            f"the budget is spent: {counts['waiting']:,} passages wait; the same command with a "
            "higher --budget goes on"
        )
    return "\n".join((*lines, f"written to {out} (the others: {out.stem}.dropped.parquet)"))
