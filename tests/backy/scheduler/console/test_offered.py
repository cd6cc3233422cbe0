"""Commands that plugins add to the console, and how each of them ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backy.errors import BackyError
from backy.scheduler.console.access import console_commands

HEAD = "import os\nfrom backy.api import *\nfrom backy.hookspecs import hookimpl\n"
COMMANDS = (
    HEAD
    + """
@hookimpl
def backy_console_commands():
    yield ConsoleCommand("drives", "Help.", lambda words: " ".join(words), changes=True)
    yield ConsoleCommand("fails", "Help.", lambda words: 1 / 0)
    yield ConsoleCommand("refuses", "Help.", refuse)
    yield ConsoleCommand("exits", "Help.", lambda words: os._exit(1))
def refuse(words): raise BackyError("no such drive")
"""
)


def test_hook_backy_console_commands_run_in_a_process_of_their_own(distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.hooks": ["x"]}, COMMANDS)
    found = console_commands({})

    assert found["drives"].run(["a", "b"]) == "a b"
    assert (found["drives"].help, found["drives"].changes, found["fails"].changes) == ("Help.", True, False)
    for name, text in {
        "fails": "hook 'x' of acme 1.0 failed: ZeroDivisionError",
        "refuses": "^no such drive$",
        "exits": "hook 'x' of acme 1.0 failed: ended with exit code 1",
    }.items():
        with pytest.raises(BackyError, match=text):
            found[name].run([])


def test_hook_backy_console_commands_takes_the_first_of_one_name_and_leaves_out_what_is_none(
    distribution: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    for name, command in {
        "a": "'drives'",
        "b": "ConsoleCommand('d', '', lambda w: 'b')",
        "c": "ConsoleCommand('d', '', lambda w: 'c')",
    }.items():
        distribution(
            name, {"backy.hooks": [name]}, f"{HEAD}@hookimpl\ndef backy_console_commands(): return [{command}]\n"
        )

    found = console_commands({})

    assert {name: command.run([]) for name, command in found.items()} == {"d": "b"}
    assert "hook 'a' adds no commands: TypeError: 'drives' is no ConsoleCommand whose name is a word" in caplog.text
