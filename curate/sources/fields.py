"""Fields of a JSON value, of the type that a format prescribes, or an error that says where."""

from typing import Any

from curate.errors import UserError

_MISSING: Any = object()


def get(value: Any, key: str, kind: Any, where: str, form: str, default: Any = _MISSING) -> Any:
    """``value[key]``; ``form`` names the format, ``where`` the file and the place in it.

    Raises `UserError` where the field is missing and has no ``default``, or is of another type.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: an object is needed, found {type(value).__name__}")
    if key not in value:
        if default is not _MISSING:
            return default
        raise UserError(f"{where}: field '{key}' is missing; is this the official {form} format?")
    found = value[key]
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        wanted = kind.__name__ if isinstance(kind, type) else "string or number"
        raise UserError(f"{where}.{key}: {wanted} is needed, found {found!r:.80}")
    return found
