"""Prints JSON for programs, indented so that people can read it as well."""

from __future__ import annotations

import click


def print_json(content: object) -> None:
    """Print `content`, of types that msgspec knows, as indented JSON on standard output."""
    # Imported late: a command that prints a table does not need it.
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2))
