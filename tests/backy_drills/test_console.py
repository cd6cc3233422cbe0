"""What a console tells of a guest. The lines are those of real guests."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy_drills.console import Console

BOOT = """\
[    0.000000] Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org)\r
Begin: Running /scripts/init-bottom ... done.\r
[   11.4] systemd[1]: systemd 252.39-1~deb12u2 running in system mode (+PAM +AUDIT)\r
\r
Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!\r
[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39mmulti-user.target\x1b[0m - Multi-User System.\r
"""


def told(text: str) -> tuple[list[str], str]:
    console = Console()
    return [*console.take(text.encode())], console.fault


def test_a_guest_lives_when_systemd_is_up() -> None:
    assert told(BOOT) == (["kernel", "init", "up"], "")


@given(cuts=st.lists(st.integers(0, len(BOOT.encode()))))
def test_it_does_not_matter_in_which_pieces_it_comes(cuts: list[int]) -> None:
    console, found, content = Console(), list[str](), BOOT.encode()
    edges = [0, *sorted(cuts), len(content)]
    for begin, end in itertools.pairwise(edges):
        found += console.take(content[begin:end])

    assert (found, console.fault, not console.awaited) == (["kernel", "init", "up"], "", True)


@pytest.mark.parametrize(
    "line", ["\r\nDebian GNU/Linux 12 vm ttyS0\r\n\r\nvm login: ", "INIT: Entering runlevel: 2\r\n"]
)
def test_a_guest_lives_when_it_asks_for_a_login_or_has_its_runlevel(line: str) -> None:
    """The line of the login has no end; what comes with it has been seen as well."""
    assert told(line) == (["kernel", "init", "up"], "")


FAULTS = {
    "emergency": (
        (
            b"\x1b[K[\x1b[0;1;31m TIME \x1b[0m] Timed out waiting for device \x1b[0;1;\xe2\x80\xa666666-7777.\r\r\n"
            b"\x1b[K[\x1b[0;1;38;5;185mDEPEND\x1b[0m] Dependency failed for \x1b[0;1;39msrv.mount\x1b[0m - /srv.\r\r\n"
            b"[\x1b[0;32m  OK  \x1b[0m] Reached target \x1b[0;1;39memergency.target\x1b[0m - Emergency Mode.\r\r\n"
        ),
        (
            "the guest is in emergency mode: Timed out waiting for device \u202666666-7777.; "
            "Dependency failed for srv.mount - /srv."
        ),
    ),
    "root": (
        (
            b"Gave up waiting for root file system device.  Common problems:\n - Boot args (cat /proc/cmdline)\n"
            b"ALERT!  UUID=99999999 does not exist.  Dropping to a shell!\n"
        ),
        "the root file system was not mounted: ALERT!  UUID=99999999 does not exist.  Dropping to a shell!",
    ),
    "no initramfs": (
        b"[    4.19] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n",
        "the root file system was not mounted: VFS: Unable to mount root fs on unknown-block(0,0)",
    ),
    "init": (
        b"[    9.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r\n",
        "the kernel panics: Attempted to kill init! exitcode=0x00000100",
    ),
    "fsck": (
        b"/dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n",
        "a file system has errors: /dev/vda1: UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.",
    ),
}


@pytest.mark.parametrize(("text", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_told_with_its_causes_however_its_lines_come(text: bytes, fault: str) -> None:
    for size in (1, 7, len(text)):
        console = Console()
        for at in range(0, len(text), size):
            assert not list(console.take(text[at : at + size]))
        assert console.fault == fault.replace("\u2026", "\ufffd" * 3 if size < len(text) and size < 7 else "\u2026")


def test_a_guest_that_lives_has_no_faults_any_more() -> None:
    assert told(BOOT + "Kernel panic - not syncing: made up by a user\n") == (["kernel", "init", "up"], "")


@given(st.binary())
def test_whatever_a_guest_writes_is_read(data: bytes) -> None:
    console = Console()
    list(console.take(data))
    list(console.take(b"x" * 2**20))
    assert len(console.last) <= 200


def test_lines_without_an_end_take_no_memory() -> None:
    console = Console()
    for _ in range(3):
        assert not list(console.take(b"x" * 2**20))
    assert len(console._line) <= 4096
