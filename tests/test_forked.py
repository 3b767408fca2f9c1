"""What the tests' commands are forked from."""

from importlib.util import find_spec

from forked import IMPORTED


def test_what_is_imported_beforehand_is_there() -> None:
    """A fork server leaves out what it does not find, and says nothing: tests would be slow."""
    assert [name for name in IMPORTED if find_spec(name) is None] == []
