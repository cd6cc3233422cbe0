"""Whatever becomes of a backup, the next one works, and removes what was left."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.guest import FOLDER, Guest

FAULTS = Path(__file__).with_name("faults.py")
CALLS = ["lvs", "lvcreate", "dmsetup", "dmsetup", "dmsetup", "dmsetup", "thin_delta", "dmsetup"]
"""The programs that a backup of a thin volume calls before it reads."""


def test_after_any_end_of_a_backup_one_snapshot_stays(guest: Guest, rounds: Callable[[int, int], int]) -> None:
    guest.shell("""
        lvcreate -qq -L 128M -T vg/p-o; lvcreate -qq -V 8M -T vg/p-o -n web--1_data
        lvcreate -qq -V 8M -T vg/p-o -n web2
    """)
    guest.backy("-b", f"{FOLDER}/web1", "init", "lvm", "vg/web--1_data")
    every = rounds(0, 1)
    ended = guest.shell(f"cd {FOLDER}; backy {FAULTS} {'every' * every} 2>&1", limit=3600)
    killed = [line.split()[2] for line in ended.out.splitlines() if line.startswith("killed after ")]
    assert killed == [*every * [*CALLS, "lvchange", "lvremove"], "dmsetup", "thin_delta"]

    guest.backy("-b", f"{FOLDER}/web1", "restore", f"{FOLDER}/restored")
    guest.shell(f"cmp {FOLDER}/restored /dev/vg/web--1_data")
    guest.backy("-b", f"{FOLDER}/web1", "release")
    assert guest.snapshots("vg") == []
