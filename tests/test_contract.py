"""One prompt for training and serving, and one abstention phrase."""

import json
from typing import Any

import pytest

from curate.contract import PHRASES, Contract, Shot
from curate.record import Row
from train.collate import make_example

HISTORY = [{"role": "user", "content": "Which pass?"}, {"role": "assistant", "content": "Day."}]


def test_the_context_comes_before_the_question_and_holds_both_texts(real_model: Any) -> None:
    prompt = Contract().prompt(real_model.tokenizer, "It costs £6.", "How much?", HISTORY)
    places = [prompt.index(t) for t in ("unanswerable", "It costs £6.", "Which pass?", "How much?")]
    assert places == sorted(places)
    assert prompt.endswith("<|im_start|>assistant\n")


def test_training_reads_the_very_prompt_that_serving_sends(real_model: Any) -> None:
    contract, tokenizer = Contract(), real_model.tokenizer
    row = Row("How much?", "It costs £6.", answers=["£6"], sufficient=True)
    example = make_example(row, tokenizer, contract, real_model.end_token_id)
    assert tokenizer.decode(example.prompt) == contract.prompt(tokenizer, row.context, row.question)
    assert tokenizer.decode(example.answer) == "£6<|im_end|>"
    assert example.answer[-1] == real_model.end_token_id


def test_an_insufficient_row_is_taught_the_phrase(real_model: Any) -> None:
    row = Row("How much?", "", answers=["£6"], sufficient=False, reason="no_context")
    contract = Contract(abstention_phrase=PHRASES[1])
    example = make_example(row, real_model.tokenizer, contract, real_model.end_token_id)
    assert real_model.tokenizer.decode(example.answer[:-1]) == PHRASES[1]
    assert PHRASES[1] in real_model.tokenizer.decode(example.prompt)
    assert "(no context given)" in real_model.tokenizer.decode(example.prompt)


def test_a_model_without_a_chat_template_gets_the_same_parts_as_plain_text() -> None:
    class Plain:
        chat_template = None

    prompt = Contract().prompt(Plain(), "It costs £6.", "How much?")  # type: ignore[arg-type]
    assert "It costs £6." in prompt and prompt.endswith("Question: How much?\nAnswer: ")


@pytest.mark.parametrize(
    "text", ["unanswerable", "Unanswerable.", " unanswerable\n", '"unanswerable"']
)
def test_the_phrase_is_recognised_give_or_take_dress(text: str) -> None:
    assert Contract().is_abstention(text)


@pytest.mark.parametrize("phrase", ["I don't know.", "Not stated!", " unanswerable"])
def test_a_phrase_of_any_dress_is_recognised_in_its_own(phrase: str) -> None:
    assert Contract(abstention_phrase=phrase).is_abstention(phrase)


@pytest.mark.parametrize("text", ["It is unanswerable why", "answerable", ""])
def test_other_texts_are_no_abstention(text: str) -> None:
    assert not Contract().is_abstention(text)


def test_it_is_stored_and_comes_back_the_same() -> None:
    contract = Contract(abstention_phrase=PHRASES[1], system="Be brief, or say: {phrase}")
    assert Contract.from_json(contract.to_json()) == contract


def test_worked_examples_stand_before_the_question_and_come_back() -> None:
    shots = (Shot("Rome is old.", "Is Rome old?", "yes"), Shot("x", "Who?", "unanswerable"))
    contract = Contract(shots=shots)
    roles = [message["role"] for message in contract.messages("c", "q")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert Contract.from_json(json.loads(json.dumps(contract.to_json()))) == contract

    class Bare:
        chat_template = None

        def apply_chat_template(self, conversation: Any, **_: Any) -> Any:
            raise AssertionError

    text = contract.prompt(Bare(), "c", "q")
    assert text.index("Is Rome old?\nAnswer: yes") < text.index("Who?\nAnswer: unanswerable")
    assert text.endswith("Question: q\nAnswer: ")
