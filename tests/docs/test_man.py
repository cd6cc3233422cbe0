"""Each command has a man page that says what its help says, and man(1) shows it without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from backy.cli.main import backy
from backy.plugins.discovery import Kind, advertised
from backy.scheduler.configuration.configuration import Global, JobKeys

GENERATOR = Path(__file__).parents[2] / "docs/generate_man.py"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, GENERATOR, folder], check=True)
    return folder


def shown(page: Path) -> str:
    """Return a page as man(1) shows it."""
    wide = {**os.environ, "MANWIDTH": "500"}  # cells that are too narrow for a word are no mistake
    done = subprocess.run(["man", "--warnings", "-l", page], env=wide, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def commands(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command is not None
            yield from commands(click.Context(command, info_name=name, parent=context))


def words(text: str) -> list[str]:
    """Return the words of a text: man(1) breaks lines elsewhere, and uses other hyphens and quotes."""
    return re.findall(r"\w+", text)


def test_each_command_has_a_page_with_all_of_its_help(pages: Path) -> None:
    known = {
        context.command_path.replace(" ", "-"): context for context in commands(click.Context(backy, info_name="backy"))
    }
    del known["backy-import-diff"]  # of an example, which is no part of a release
    assert {page.stem for page in pages.glob("*.1")} == known.keys()
    ours = {name for name, claims in advertised(Kind.COMMAND).items() if claims[0].distribution.startswith("backy")} - {
        "import-diff"
    }
    assert {f"backy-{name}" for name in ours} < known.keys()
    for name, context in known.items():
        text = " ".join(words(shown(pages / f"{name}.1")))
        options = [one for one in context.command.params if isinstance(one, click.Option) and not one.hidden]
        for told in (context.command.help, *(option.help for option in options)):
            assert " ".join(words((told or "").replace("\b", ""))) in text, name


def test_a_line_that_begins_as_troff_commands_do_is_text(pages: Path) -> None:
    """Quotes and dots at the begin of a line are such commands, which man(1) does not show."""
    assert "'ceph-rbd:POOL/IMAGE'" in shown(pages / "backy-restore.1")
    assert not re.findall(r"^'(?!\\\")", (pages / "backy-restore.1").read_text(), re.MULTILINE)


def test_the_page_of_the_configuration_has_all_keys(pages: Path) -> None:
    text = shown(pages / "backy.conf.5")

    for section in (Global, JobKeys):
        assert [key for key in section.__struct_encode_fields__ if key not in text] == []
