"""The templates of this package's pages: one file each, no network."""

from typing import Any


def render(template: str, **values: Any) -> str:
    """A page; whatever comes from data is escaped."""
    import jinja2

    loader = jinja2.PackageLoader("abstain", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template(template).render(**values)
