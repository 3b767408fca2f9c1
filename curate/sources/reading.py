"""Every kind of source by its name: rows as a stream, and passages where it has them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from curate import record
from curate.recipe import ForumSource, RowsSource, SiteSource, Source, TableSource, TriviaQASource
from curate.record import Passage, Row
from curate.sources import coqa, natural_questions, nq_open, quac, site, squad, table, triviaqa
from curate.sources.forum import discourse, stack_exchange

Reader = Callable[[str, str, str], Iterator[Row]]
READERS: dict[str, Reader] = {
    "squad": squad.read,
    "nq": natural_questions.read,
    "nq_open": nq_open.read,
    "coqa": coqa.read,
    "quac": quac.read,
}
FORUMS = {"stackexchange": stack_exchange.read, "discourse": discourse.read}


def read(source: Source) -> tuple[Iterator[Row], list[Passage]]:
    """The source's rows, read as they are asked for, and its passages."""
    path, name, licence = source.path, source.name, source.licence
    if isinstance(source, SiteSource):
        rows, passages = site.read(path, name, licence, source.base_url)
        return iter(rows), passages
    if isinstance(source, RowsSource):
        return iter(record.read_rows(Path(path))), record.read_passages_beside(Path(path))
    if isinstance(source, ForumSource):
        return FORUMS[source.kind](path, name, licence, source.base_url), []
    if isinstance(source, TriviaQASource):
        return triviaqa.read(path, name, licence, source.evidence), []
    if isinstance(source, TableSource):
        return table.read(path, name, licence, source.columns), []
    return READERS[source.kind](path, name, licence), []
