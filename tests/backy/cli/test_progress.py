from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

from backy.cli.progress import steps
from backy.repository import Repository


def test_nothing_is_shown_where_there_is_no_terminal(capfd) -> None:
    with steps() as show:
        show("backup", 10)(10)

    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_each_step(repository: Repository) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while piece := os.read(ours, 65536):
                shown.extend(piece)
        except OSError:
            return  # the last writer has closed the terminal

    reader = threading.Thread(target=read)
    reader.start()
    call = [sys.executable, "-c", "from backy.cli.main import main; main()", "-b", repository.directory, "backup", "x"]
    done = subprocess.run(
        call,
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "COLUMNS": "120"},
    )
    os.close(theirs)
    reader.join(30)
    os.close(ours)

    assert done.stdout.endswith(b" verified\n")
    for word in (b"backup", b"verify", b"16.0/16.0 MiB"):
        assert word in shown
