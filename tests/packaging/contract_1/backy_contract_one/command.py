"""A command of its own."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("one")
@click.pass_obj
def command(directory: Path) -> None:
    """Count the chunks that are stored."""
    click.echo(sum(path.name != "identity" for path in (directory / "one").iterdir()))
