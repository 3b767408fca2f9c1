"""Data sets by hub name (``hub:NAME``, ``hub:NAME@SPLIT`` or ``hub:FOLDER``), row by row."""

from collections.abc import Iterator
from typing import Any

from curate.errors import UserError


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of every split (or of the one named), with a text that says where it stands.

    Streamed, so that memory stays flat on any size. Data sets that need code of their own to
    load are refused by `datasets`, and are not trusted here either.
    """
    import datasets

    name, _, split = path.removeprefix("hub:").partition("@")
    try:
        loaded = datasets.load_dataset(name, streaming=True)
        if split and split not in loaded:
            raise UserError(f"{path}: no split '{split}'; there are {', '.join(loaded)}")
        for name_of_split in [split] if split else list(loaded):
            for index, row in enumerate(loaded[name_of_split]):
                yield f"{name} ({name_of_split}, row {index})", dict(row)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise UserError(
            f"cannot load '{name}' from the hub: {first_line}\n"
            "  check the name and the network, or give a downloaded file instead"
        ) from error
