#!/usr/bin/env python3
"""Writes man pages: `python docs/generate_man.py TARGET`.

backy(1) and a page of each command, such as backy-restore(1), are made from the help of the commands, which is the one
source for them. backy.conf(5) is made by Sphinx from the page of the reference.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import click
from docutils import nodes, utils
from docutils.core import publish_from_doctree
from docutils.writers import manpage
from generate_cli import ours
from sphinx.application import Sphinx

from backy.cli.main import backy

CONFIGURATION = Path(__file__).parent / "reference/backy-conf.md"
VERSION = version("backy")


def main(target: Path) -> None:
    """Write all pages into `target`, which is made."""
    target.mkdir(parents=True, exist_ok=True)
    top = click.Context(backy, info_name="backy")
    for context in (top, *commands_of(top, backy)):
        name = context.command_path.replace(" ", "-")
        (target / f"{name}.1").write_text(page(name, context))
    write_configuration(target)


def commands_of(context: click.Context, group: click.Group) -> Iterator[click.Context]:
    """Yield a context of each command of a group, and of each below those."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and (group is not backy or ours(name)):
            below = click.Context(command, info_name=name, parent=context, **command.context_settings)
            yield below
            if isinstance(command, click.Group):
                yield from commands_of(below, command)


def page(name: str, context: click.Context) -> str:
    """Return the man page of a command."""
    command = context.command
    about = {"manual_section": "1", "manual_group": "backy", "version": f"backy {VERSION}"}
    fields = [
        nodes.field("", nodes.field_name(text=key), nodes.field_body("", nodes.paragraph(text=value)))
        for key, value in about.items()
    ]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [one.get_help_record(context) for one in command.get_params(context) if isinstance(one, click.Option)]
    below = commands_of(context, command) if isinstance(command, click.Group) else ()
    document = utils.new_document(name)
    document += [
        nodes.title(text=name),
        nodes.subtitle(text=summary(command)),
        nodes.docinfo("", *fields),
        section("Synopsis", nodes.literal_block(text=usage)),
        section("Description", *map(paragraph, inspect.cleandoc(command.help or "").split("\n\n"))),
        *definitions("Options", [record for record in options if record is not None]),
        *definitions("Commands", [(one.command_path, summary(one.command)) for one in below]),
        section("See also", nodes.paragraph(text="backy(1), backy.conf(5)")),
    ]
    return publish_from_doctree(document, writer=manpage.Writer()).decode()


def summary(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split()).removesuffix(".")


def section(title: str, *content: nodes.Element) -> nodes.section:
    """Return a section of a page."""
    return nodes.section("", nodes.title(text=title), *content)


def paragraph(text: str) -> nodes.Element:
    """Return a paragraph; one that click shall not wrap keeps its lines."""
    marked = text.removeprefix("\b\n")
    return nodes.paragraph(text=text) if marked == text else nodes.literal_block(text=marked)


def definitions(title: str, entries: Iterable[tuple[str, str]]) -> Iterator[nodes.section]:
    """Yield a section that lists words and what they mean, if there are any."""
    items = [
        nodes.definition_list_item("", nodes.term(text=word), nodes.definition("", nodes.paragraph(text=meaning)))
        for word, meaning in entries
    ]
    if items:
        yield section(title, nodes.definition_list("", *items))


def write_configuration(target: Path) -> None:
    """Write backy.conf(5)."""
    settings = {
        "extensions": ["myst_parser"],
        "man_pages": [("backy-conf", "backy.conf", "configuration of backy's scheduler", "", 5)],
        "project": "backy",
        "release": VERSION,
        "root_doc": "backy-conf",
        # links lead to other pages, which are not made here
        "suppress_warnings": ["myst.xref_missing"],
    }
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(CONFIGURATION, folder)
        sphinx = Sphinx(folder, None, str(target), f"{folder}/trees", "man", settings, status=None, warningiserror=True)
        sphinx.build()
        if sphinx.statuscode:
            sys.exit(sphinx.statuscode)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
