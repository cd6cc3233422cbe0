from __future__ import annotations

import os
import pty
import select
from pathlib import Path

import pytest

from backy.cli.progress import steps


def test_nothing_is_shown_where_there_is_no_terminal(capfd) -> None:
    with steps() as show:
        show("backup", 10)(10)

    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_each_step_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    with Path(os.ttyname(theirs)).open("w", encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with steps() as show:
            for name in ("backup", "verify"):
                progress = show(name, 16 * 2**20)
                progress(2**20)
                progress(15 * 2**20)
        shown = b""
        while not all(word in shown for word in (b"backup", b"verify", b"16.0/16.0 MiB")):
            assert select.select([ours], [], [], 30)[0], shown
            shown += os.read(ours, 100_000)
    os.close(theirs)
    os.close(ours)
