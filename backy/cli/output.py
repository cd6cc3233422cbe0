"""What commands print for programs: JSON that people can read as well."""

from __future__ import annotations

import click


def print_json(content: object) -> None:
    """Print `content`, of types that msgspec knows, as indented JSON on standard output."""
    # Imported here: a command that prints a table has no use for it.
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2))
