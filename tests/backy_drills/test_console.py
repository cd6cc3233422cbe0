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
        # no data would be the end
        found += console.take(content[begin:end]) if begin < end else ()

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
        assert console.fault == fault


def test_a_fault_in_the_same_piece_comes_before_what_would_be_life() -> None:
    found, fault = told("Linux version 6\nYou are in emergency mode\nvm login: ")
    assert (found, fault) == (["kernel"], "the guest is in emergency mode: You are in emergency mode")


def test_of_many_causes_the_first_and_the_last_are_told() -> None:
    console = Console()
    lines = [f"Failed to start {number}.\n" for number in range(10000)]
    list(console.take("".join([*lines, "You are in emergency mode\n"]).encode()))
    assert console.fault == "the guest is in emergency mode: " + "; ".join(
        f"Failed to start {number}." for number in (0, 1, 2, 9999)
    )


def test_what_moves_on_the_screen_hides_nothing() -> None:
    console = Console()
    list(console.take(b"\r\x1b[K[***] A start job is running for dev-x.device" * 200))
    assert list(console.take(b"\r\x1b[K[  OK  ] Reached target Multi-User System.\r\n")) == ["kernel", "init", "up"]


@pytest.mark.parametrize("line", ["Nobody may ask for a login: ", "login: "])
def test_not_all_that_has_a_login_asks_for_one(line: str) -> None:
    assert told(line) == ([], "")


def test_no_data_is_the_end() -> None:
    console = Console()
    assert [*console.take(b"last words\n"), *console.take(b"")] == []
    assert console.fault == "the guest has ended; its console says last: last words"


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
    assert len(console._rest) <= 4096
