"""Recipes: every mistake is named by file, key and line, all of them at once."""

from pathlib import Path

import pytest
import yaml
from curate_helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.recipe import FoldShares, load

GOOD = """\
name: mine
sources:
  - kind: squad
    path: questions.json
  - kind: site
    path: pages
"""


def refusal(tmp_path: Path, text: str) -> str:
    """What loading says about a recipe with a mistake; the file is named in every line of it."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    message = str(caught.value)
    assert all(line.startswith(f"{path}:") for line in message.splitlines())
    return message.replace(f"{path}:", "").strip()


def test_paths_are_taken_from_the_recipe_and_names_from_the_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "r.yaml").write_text(GOOD.replace("pages", "../pages"))
    recipe = load(tmp_path / "sub" / "r.yaml")
    assert [source.path for source in recipe.sources] == [
        str(tmp_path / "sub" / "questions.json"),
        str(tmp_path / "pages"),
    ]
    assert [source.name for source in recipe.sources] == ["questions", "pages"]


def test_hub_names_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\nsources: [{kind: squad, path: 'hub:org/set'}]")
    (source,) = load(tmp_path / "r.yaml").sources
    assert (source.path, source.name) == ("hub:org/set", "set")


@pytest.mark.parametrize("recipe", sorted((ROOT / "data" / "recipes").glob("*.yaml")))
def test_recipes_that_we_ship_are_valid(recipe: Path) -> None:
    assert load(recipe).sources


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        (GOOD + "seeed: 3\n", 7, "seeed", "seed"),
        (GOOD + "clean:\n  max_context: 10\n", 8, "clean.max_context", "max_context_chars"),
        (GOOD + "folds: {train: 0.5,\n  tset: 0.5}\n", 8, "folds.tset", "test"),
        (GOOD + "insufficient:\n  method: []\n", 8, "insufficient.method", "methods"),
        (GOOD.replace("squad\n", "squad\n    licens: CC0\n"), 4, "sources.0.licens", "licence"),
        (GOOD + "    base_uri: http://x\n", 7, "sources.1.base_uri", "base_url"),
    ],
)  # fmt: skip
def test_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(
    tmp_path: Path, text: str, line: int, key: str, nearest: str
) -> None:
    message = refusal(tmp_path, text)
    assert f"line {line}: unknown key '{key}'; did you mean '{nearest}'?" in message


def test_key_that_another_kind_of_source_has_is_not_offered(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD.replace("questions.json", "q.json\n    columns: {}"))
    assert "line 5: unknown key 'sources.0.columns'" in message
    assert "(known keys: kind, licence, name, path)" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "seed: soon\n", "line 7: 'seed'"),
        (GOOD + "\nclean:\n  max_question_chars: 0\n", "line 9: 'clean.max_question_chars'"),
        (GOOD + "insufficient: {share: 1.0}\n", "line 7: 'insufficient.share'"),
        (GOOD + "insufficient:\n  methods:\n  - no_contxt\n", "line 9: 'insufficient.methods.0'"),
        (GOOD.replace("questions.json", "[1, 2]"), "line 4: 'sources.0.path'"),
        (GOOD.replace("squad", "squat"), "line 3: 'sources.0'"),
        ("name: x\nsources: []\n", "line 2: 'sources'"),
        ("name: x\nsources: squad\n", "line 2: 'sources'"),
        (GOOD + "name2: {\n", "line 8 column 1 not valid YAML"),
        (GOOD + "\tseed: 3\n", "line 7 column 1 not valid YAML"),
        (GOOD + "description: 2025-13-45\n", "month must be in 1..12"),
        (GOOD + "name: again\n", "line 7: key 'name' is given twice"),
        (GOOD + "clean: &a\n  x: *a\n", "line 8: unknown key 'clean.x'"),
        ("- a list\n", "line 1: a mapping"),
        ("", "line 1: a mapping"),
        ("sources: [{kind: squad, path: x}]\n", "line 1: key 'name' is missing"),
        ("name: x\n", "line 1: key 'sources' is missing"),
        ("name: x\nsources:\n- kind: squad\n", "line 3: key 'sources.0.path' is missing"),
    ],
)
def test_wrong_value_is_named_with_its_key_and_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert expected in refusal(tmp_path, text)


def test_several_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("path: pages", "pth: pages") + "seed: soon\nclean: {max: 3}\n"
    lines = refusal(tmp_path, text).splitlines()
    found = {line.strip().split(": ")[0]: line for line in lines}
    assert sorted(found) == ["line 5", "line 6", "line 7", "line 8"]
    assert "'sources.1.path' is missing" in found["line 5"]
    assert "'sources.1.pth'; did you mean 'path'?" in found["line 6"]
    assert "'seed'" in found["line 7"]
    assert "'clean.max'" in found["line 8"]


def test_fold_shares_that_do_not_add_up_to_one_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, GOOD + "folds: {train: 0.9}\n")
    assert "line 7: 'folds': the shares add up to 1.3, and 1 is needed" in message


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any))
def test_fold_shares_that_add_up_to_one_are_kept_without_the_empty_ones(parts: list[int]) -> None:
    names = ("train", "validation", "calibration", "test", "stream")
    shares = {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}
    kept = FoldShares(**shares).as_dict()
    assert kept == {name: share for name, share in shares.items() if share}


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "sources", "kind", "squad", "path", "folds", "train", "clean"]),
        inner, max_size=4),
    max_leaves=12,
).map(yaml.safe_dump)))  # fmt: skip
def test_no_yaml_at_all_makes_the_loader_crash(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        assert load(path).sources
    except UserError as error:
        assert str(path) in str(error)


def test_a_source_to_test_on_must_be_one_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "name: x\nsources:\n  - {kind: squad, path: a.json}\nfolds: {test_sources: [b]}\n"
    )
    with pytest.raises(UserError, match="names 'b'; the sources are a"):
        load(tmp_path / "r.yaml")
