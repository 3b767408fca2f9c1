"""A folder of HTML files: passages, and question-answer pairs from pages that hold them."""

from pathlib import Path

from tqdm import tqdm

from curate.errors import UserError, os_error
from curate.record import Passage, Row
from curate.web import page


def read(
    path: str, name: str, licence: str = "", base_url: str = ""
) -> tuple[list[Row], list[Passage]]:
    """Read every ``*.html`` below the folder ``path``, in the order of their names."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: not a folder; a site source is a folder of HTML files")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".html", ".htm"))
    if not files:
        raise UserError(f"{path}: no .html file in this folder")
    rows: list[Row] = []
    passages: list[Passage] = []
    for file in tqdm(files, desc=f"read {name}", unit="page"):
        relative = file.relative_to(folder).as_posix()
        url = base_url.rstrip("/") + "/" + relative if base_url else relative
        try:
            html = page.decode(file.read_bytes())
        except OSError as error:
            raise os_error("read", file, error) from error
        found = page.read(html, relative, name, url, licence)
        if found.faults:
            raise UserError(f"{file}: {found.faults[0]}")
        rows += found.rows
        passages += found.passages
    return rows, passages
