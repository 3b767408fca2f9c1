"""`curate annotate`: the group of its commands."""

import click

from curate.annotate.crowd.command import crowd


@click.group()
def annotate() -> None:
    """Have people label rows and write questions."""


annotate.add_command(crowd)
