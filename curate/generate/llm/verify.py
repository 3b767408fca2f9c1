"""Whether a question that a model wrote is what it was asked for.

What the texts tell was looked at before (`curate/generate/checks.py`). Then a reader is asked with
the passage and without it, and a judge; the first fault ends it.
"""

from curate.contract import Contract
from curate.generate.checks import NONE, Fault
from curate.generate.llm.asking import Model, Request
from curate.insufficient.made import READER_TOKENS
from curate.insufficient.readers import JUDGE_TOKENS, agree, judge_messages, verdict
from curate.record import Row

STEP = "llm"
_CLOSED_BOOK = (
    "Answer the question from what you know, in a few words. If you cannot know it, reply: unknown"
    "\n\nQuestion: {question}"
)


async def fault_of_models(row: Row, reader: Model) -> Fault:
    """What a reader finds wrong with a row; its votes are kept with the row."""
    contract = Contract()
    asked = Request(contract.messages(row.context, row.question), READER_TOKENS)
    answer = await reader.ask(asked, str)
    abstains = not answer or contract.is_abstention(answer)
    vote = f"reader:{reader.model}"
    if not row.sufficient:
        row.votes[vote] = float(not abstains)
        if not abstains:
            return "reader_answers", answer[:200]
        judged = await reader.ask(
            Request(judge_messages(row.context, row.question), JUDGE_TOKENS), verdict
        )
        row.votes[f"judge:{reader.model}"] = judged
        return ("judge_finds_an_answer", "") if judged >= 0.5 else NONE
    row.votes[vote] = float(not abstains and agree(answer, row.answers))
    if abstains:
        return "reader_abstains", ""
    if not row.votes[vote]:
        return "reader_disagrees", answer[:200]
    closed = [{"role": "user", "content": _CLOSED_BOOK.format(question=row.question)}]
    known = await reader.ask(Request(closed, READER_TOKENS), str)
    if agree(known, row.answers):
        return "answered_without_passage", known[:200]
    return NONE
