"""YAML into typed settings, with errors that name the key, the line and the nearest valid key."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from curate.errors import UserError
from curate.files import read_text

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model]) -> Model:
    """Read ``path`` and validate it as ``model``; all mistakes are reported at once."""
    text = read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
        raise UserError(
            f"{path}:{where} not valid YAML: {getattr(error, 'problem', error)}"
        ) from error
    except ValueError as error:  # a date that is none, like 2025-13-45
        raise UserError(f"{path}: not valid YAML: {error}; quote it if a text is meant") from error
    repeated = [
        f"{path}: line {key.start_mark.line + 1}: key '{key.value}' is given twice in one place"
        for key in _repeated_keys(node, set())
    ]
    if repeated:  # YAML itself lets the last one win, and the first would silently be lost
        raise UserError("\n".join(repeated))
    if not isinstance(value, dict):
        raise UserError(f"{path}: line 1: a mapping of settings is needed, like 'name: my-data'")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [_describe(path, node, problem, model) for problem in error.errors()]
        raise UserError("\n".join(problems)) from error


def _repeated_keys(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """Keys that their mapping has had before; ``seen`` keeps aliases from leading in circles."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        names = [str(key.value) for key, _ in node.value]
        yield from (key for i, (key, _) in enumerate(node.value) if names[i] in names[:i])
        for _, value in node.value:
            yield from _repeated_keys(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item, seen)


def _describe(path: Path, root: yaml.Node | None, problem: Any, model: type[BaseModel]) -> str:
    location = _without_tags(problem["loc"], root)
    line = _line(root, location)
    name = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), _keys_at(problem["loc"], model), 1, 0.4)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        known = ", ".join(_keys_at(problem["loc"], model))
        return f"{path}: line {line}: unknown key '{name}'{hint} (known keys: {known})"
    if problem["type"] == "missing":
        return f"{path}: line {line}: key '{name}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: line {line}: '{name}': {message}; found {problem['input']!r}"


def _without_tags(location: tuple[Any, ...], root: yaml.Node | None) -> tuple[Any, ...]:
    """The location without the names that pydantic adds for members of a tagged union."""
    kept: list[Any] = []
    node = root
    for index, part in enumerate(location):
        child = _child(node, part)
        is_last = index == len(location) - 1
        if child is None and not is_last:
            continue  # a union's tag, which the file does not have
        kept.append(part)
        node = child if child is not None else node
    return tuple(kept)


def _child(node: yaml.Node | None, part: Any) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value  # type: ignore[no-any-return]
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part]  # type: ignore[no-any-return]
    return None


def _line(root: yaml.Node | None, location: tuple[Any, ...]) -> int:
    """The line of the key at ``location``, or of the nearest thing above it that exists."""
    node, line = root, (root.start_mark.line + 1 if root else 1)
    for part in location:
        if isinstance(node, yaml.MappingNode):
            line = next(
                (k.start_mark.line + 1 for k, _ in node.value if k.value == str(part)), line
            )
        node = _child(node, part)
        if node is None:
            break
        if isinstance(part, int):
            line = node.start_mark.line + 1
    return line


def _keys_at(location: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """The keys that a settings model knows at the place of an unknown one."""
    candidates: list[Any] = [model]
    for part in location[:-1]:
        candidates = [inner for candidate in candidates for inner in _models_below(candidate, part)]
    return sorted({key for candidate in candidates for key in candidate.model_fields})


def _models_below(model: type[BaseModel], part: Any) -> list[type[BaseModel]]:
    if isinstance(part, str) and part in model.model_fields:
        return _models_in(model.model_fields[part].annotation)
    if isinstance(part, str):  # the tag of a union: the member whose `kind` it is
        kind = model.model_fields.get("kind")
        return (
            [model] if kind is not None and part in getattr(kind.annotation, "__args__", ()) else []
        )
    return [model]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
