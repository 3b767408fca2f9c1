"""`report.html` of a data set: what is in it, what was left out, and examples to look at."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from curate.record import Dropped, Row

_EXAMPLES = 3


def render(
    manifest: dict[str, Any], splits: Mapping[str, list[Row]], dropped: Iterable[Dropped]
) -> str:
    """One HTML file without any outside resource."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("curate", "."), autoescape=True, trim_blocks=True
    )
    rows = [row for members in splits.values() for row in members]
    by_kind: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_kind[row.method, row.reason or "sufficient"].append(row)
    drops: dict[tuple[str, str], list[Dropped]] = defaultdict(list)
    for one in dropped:
        drops[one.step, one.drop_reason].append(one)
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        total=len(rows),
        documents=len({row.document_id for row in rows}),
        contexts=len({row.context_id for row in rows if row.context_id}),
        examples={kind: by_kind[kind][:_EXAMPLES] for kind in sorted(by_kind)},
        kinds={kind: len(by_kind[kind]) for kind in by_kind},
        drops={kind: drops[kind][:_EXAMPLES] for kind in sorted(drops)},
        drop_counts={kind: len(drops[kind]) for kind in drops},
    )
