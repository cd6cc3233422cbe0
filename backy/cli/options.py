"""Options that several commands share."""

from __future__ import annotations

import click

revision_option = click.option(
    "-r",
    "--revision",
    "specification",
    metavar="SPEC",
    default="latest",
    show_default=True,
    help="Which revision: a number (0 is the newest), an id or its beginning, a tag, or 'last'.",
)
