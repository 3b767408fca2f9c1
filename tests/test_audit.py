"""What an audit finds: shortcuts that were put in, leaks that were put in, labels as judged."""

from pathlib import Path

import numpy as np
import pytest
from curate_helpers import make_row
from sklearn.metrics import roc_auc_score

from curate.audit import labels, leaks
from curate.audit.balance import balanced
from curate.audit.shortcuts import shortcuts, unseen_scores
from curate.record import Row

WORDS = [f"word{n}" for n in range(60)]


def rows_of(count: int, telltale: float, seed: int = 0) -> list[Row]:
    """Rows of random words; of the insufficient ones, this share says "never" in its question."""
    draw = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        sufficient = n % 2 == 0
        context = " ".join(draw.choice(WORDS, 20))
        asked = " ".join(draw.choice(WORDS, 5))
        # As long as the other, and as small a word: only the question's wording tells.
        never = " never" if not sufficient and draw.random() < telltale else " there"
        answers = context.split()[:1] if sufficient else []
        rows.append(make_row(f"Who{never} {asked}?", context, answers, f"d{n % 20}"))
    return rows


def test_a_telltale_word_is_found_and_named() -> None:
    found = {shortcut.features: shortcut for shortcut in shortcuts(rows_of(400, 0.9))}
    question = found["question alone"]
    assert question.auroc["value"] is not None and question.auroc["value"] > 0.85
    assert question.telltales[0][0].endswith("never") and question.telltales[0][1] < 0
    for name in ("context alone", "overlap alone"):
        low, high = found[name].auroc["low"], found[name].auroc["high"]
        assert low is not None and high is not None and low < 0.6 and high > 0.4


def test_documents_are_scored_by_fits_without_them() -> None:
    # Every document has a word of its own and one label: worthless for another document.
    rows = []
    for n in range(200):
        document = n % 20
        answers = ["yes"] if document % 2 else []
        rows.append(make_row(f"Is it own{document}?", "yes it is", answers, f"d{document}"))
    scores = unseen_scores("question alone", rows)
    assert roc_auc_score([bool(row.sufficient) for row in rows], scores) < 0.7


def test_one_label_has_no_shortcut() -> None:
    assert shortcuts([row for row in rows_of(40, 0.0) if row.sufficient]) == []


def test_balancing_leaves_out_what_gives_itself_away() -> None:
    rows = rows_of(400, 0.5)
    result = balanced(rows, limit=0.62)
    assert result.rounds[0]["question alone"] > 0.7
    assert max(result.rounds[-1].values()) <= 0.62
    assert len(result.rows) + len(result.dropped) == len(rows)
    share = np.mean([bool(row.sufficient) for row in result.rows])
    assert share == pytest.approx(0.5, abs=0.02)
    gone = [dropped.row for dropped in result.dropped if not dropped.row.sufficient]
    assert np.mean(["never" in row.question for row in gone]) > 0.9


def test_leaks_are_found_with_both_their_rows() -> None:
    long = "The gate of Arden is painted red and was built in 1432 by the masons of Corby town."
    train = [make_row("Who?", long, ["masons"], "a")]
    clean = [make_row("What?", "Quite another matter altogether here.", ["matter"], "b")]
    assert leaks.leaks({"train": train, "test": clean}) == []
    nearly = make_row("When?", long.replace("town.", "town today."), ["1432"], "c")
    (leak,) = leaks.leaks({"train": train, "test": [nearly]})
    assert (leak.kind, leak.first_row, leak.second_row) == (
        "near_duplicate",
        train[0].id,
        nearly.id,
    )
    same = make_row("When?", "Other.", ["Other"], "a")
    assert [leak.kind for leak in leaks.leaks({"train": train, "test": [same]})] == ["document"]


def test_runs_of_words_from_a_file_that_must_stay_unseen_are_found() -> None:
    long = " ".join(f"w{n}" for n in range(30))
    outside = [make_row("Where in all this is it said?", long, ["w3"])]
    within = make_row("Other?", f"before {' '.join(long.split()[5:20])} behind", ["before"])
    apart = make_row("Another?", " ".join(long.split()[5:15]), ["w6"])
    assert [leak.first_row for leak in leaks.against([within, apart], outside)] == [within.id]
    asked = make_row("where in ALL this is it said", "", [])
    assert [leak.first_row for leak in leaks.against([asked], outside)] == [asked.id]


def test_labels_are_judged_once_and_told_with_wilsons_interval(tmp_path: Path) -> None:
    rows = [make_row(f"Q{n}?", "c", method="negated") for n in range(10)]
    rows += [make_row(f"R{n}?", "c", method="antonym") for n in range(3)]
    drawn = labels.sample(rows, 5, seed=1)
    assert [row.method for row in drawn] == ["antonym"] * 3 + ["negated"] * 5
    path = tmp_path / labels.FILE
    verdicts = iter(["no", "yes", None])
    assert labels.judge(drawn, path, lambda row: next(verdicts)) == 2  # type: ignore[arg-type]
    left = labels.todo(drawn, labels.read(path))
    assert left == drawn[2:]
    answers = iter(["unsure", "no", "no", "no", "no", "yes"])
    assert labels.judge(left, path, lambda row: next(answers)) == 6  # type: ignore[arg-type]
    antonym, negated = labels.precision(labels.read(path))
    assert (antonym.judged, antonym.right, antonym.unsure) == (2, 1, 1)
    assert (negated.judged, negated.value) == (5, 0.8)
    # Wilson's formula, written out.
    n, p, z = 5, 0.8, 1.959963984540054
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert negated.low == pytest.approx(middle - half)
    assert negated.high == pytest.approx(middle + half)
