"""Backups that fail, and backups that are killed, at any of their calls of programs. Runs in the guest.

Prints a line for each. What goes wrong raises.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from backy.api import SourceError
from backy.cli.main import main
from backy_sources_file import OpenFile
from backy_sources_lvm import snapshots, volumes

POOL = "vg-p--o-tpool"
WEB1 = "/dev/vg/web--1_data"
REAL = volumes.run_into
PATIENCE = 240
"""Seconds after which what ought to happen counts as never happening."""


def shell(script: str) -> str:
    return subprocess.run(["bash", "-ec", script], check=True, capture_output=True, text=True).stdout


def backy(*arguments: str, prepare: Callable[[], object] = lambda: None, log: str = "log") -> int:
    """Run a command in a child that is prepared; return the child's id."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            prepare()
            main(list(arguments))
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(70)
    return child


def begun(prepare: Callable[[], object] = lambda: None) -> int:
    """Change the volume, and back it up in a child that is prepared; return the child's id."""
    shell(f"head -c 64K /dev/urandom | dd of={WEB1} bs=64K iflag=fullblock conv=fsync status=none")
    return backy("-b", "web1", "backup", "daily", prepare=prepare)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def own() -> list[str]:
    return [name for name in shell("lvs --noheadings -o lv_name vg").split() if ".backy-" in name]


def after_each(act: Callable[[int, str], object]) -> Callable[[], None]:
    """Return a preparation that acts after each call of a program, with the number of calls and the command."""
    made: list[str] = []

    def prepare() -> None:
        def run_into(output: object, what: str, *command: str, **limits: float) -> None:
            REAL(output, what, *command, **limits)
            made.append(" ".join(command))
            act(len(made), made[-1])

        volumes.run_into = snapshots.run_into = run_into

    return prepare


def kill_if(chosen: Callable[[int, str], bool]) -> Callable[[], None]:
    """Return a preparation that kills the process after the first call that is chosen."""

    def act(calls: int, command: str) -> None:
        if chosen(calls, command):
            Path("killed").write_text(command)
            os.kill(os.getpid(), signal.SIGKILL)

    return after_each(act)


def wait_for_another(calls: int, command: str) -> None:
    """Keep the metadata reserved until another backup waits for it."""
    end = time.monotonic() + PATIENCE
    while "reserve_metadata_snap" in command and "-> FLOCK" not in Path("/proc/locks").read_text():
        assert time.monotonic() < end, "no other backup waits"
        time.sleep(0.05)


def failing_read() -> None:
    def pread(self: OpenFile, offset: int, length: int) -> bytes:
        raise SourceError("source vg/web1: no luck")

    OpenFile.pread = pread


def is_right() -> None:
    assert ended(begun()) == 0
    assert len(own()) == 1, own()
    # it relied on what had been there before, and the metadata of the pool are free
    assert "WARNING" not in Path("log").read_text(), Path("log").read_text()
    assert " - rw " in shell(f"dmsetup status {POOL}")


def kill(chosen: Callable[[int, str], bool]) -> bool:
    """Kill a backup; return false if it ended before."""
    code = ended(begun(kill_if(chosen)))
    assert code in {0, -signal.SIGKILL}
    if code:
        assert len(own()) <= 2, own()
        print("killed after", Path("killed").read_text())  # noqa: T201  # for the host
    return bool(code)


def kill_at_every_call() -> None:
    for point in range(1, 20):
        if not kill(lambda calls, _, point=point: calls == point):
            return
        is_right()
    raise AssertionError("there are more calls")


def two_at_once() -> None:
    """Back up two volumes of one pool, the second one when the first has reserved the metadata."""
    assert ended(backy("-b", "web2", "init", "lvm", "vg/web2")) == 0
    shell("head -c 64K /dev/urandom | dd of=/dev/vg/web2 bs=64K seek=9 status=none")
    first = begun(after_each(wait_for_another))
    end = time.monotonic() + PATIENCE
    while " - rw " in shell(f"dmsetup status {POOL}"):
        assert time.monotonic() < end, "the metadata are not reserved"
    second = backy("-b", "web2", "backup", "daily", log="log2")
    assert (ended(first), ended(second)) == (0, 0)
    assert "WARNING" not in Path("log").read_text() + Path("log2").read_text()
    assert sorted(name.partition(".")[0] for name in own()) == ["web--1_data", "web2"]
    assert ended(backy("-b", "web2", "restore", "restored2")) == 0
    shell("cmp restored2 /dev/vg/web2")
    assert ended(backy("-b", "web2", "release")) == 0


def run(every: bool) -> None:
    assert ended(begun()) == 0
    parent = own()

    assert ended(begun(failing_read)) == 1
    assert "no luck" in Path("log").read_text()
    assert own() == parent

    if every:
        kill_at_every_call()
    # before it could note what it has reserved, and then with that noted
    assert kill(lambda _, command: "reserve_metadata_snap" in command)
    assert kill(lambda _, command: "thin_delta" in command)
    is_right()

    # that of another program stays
    shell(f"dmsetup message {POOL} 0 reserve_metadata_snap")
    held = shell(f"dmsetup status {POOL}").split()[6]
    assert ended(begun()) == 0
    assert "another program has reserved the metadata" in Path("log").read_text()
    assert shell(f"dmsetup status {POOL}").split()[6] == held
    shell(f"dmsetup message {POOL} 0 release_metadata_snap")
    two_at_once()


if __name__ == "__main__":
    run(sys.argv[1:] == ["every"])
