"""Thin volumes: only what has changed is read, and only what is mapped at first."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from backy.api import CHUNK_SIZE
from backy.testing.laboratory import patterned
from tests.guest import FOLDER, Guest

MIB = 2**20
ROUNDS = Path(__file__).with_name("rounds.py")
WEB1 = f"{FOLDER}/web1"
LONG = 3600
LARGE = """
lvcreate -qq -L {pool}M -T vg/pool && lvcreate -qq -V 100G -T vg/pool -n web1
head -c 5M /dev/urandom > /dev/vg/web1
head -c 3M /dev/urandom | dd of=/dev/vg/web1 bs=1M seek=50K status=none
"""


def test_of_a_large_volume_only_what_has_changed_is_read(guest: Guest, rounds: Callable[[int, int], int]) -> None:
    # below the limit of a test, so that what hangs is named
    changed, limit = rounds(64, 1024), rounds(300, LONG)
    guest.shell(LARGE.format(pool=4 * changed))
    guest.backy("-b", WEB1, "init", "lvm", "vg/web1")
    assert guest.snapshots("vg") == []
    guest.shell(f"cd {WEB1}; chmod u+w config; echo 'verifier: none' >> config")

    guest.backy("-b", WEB1, "backup", "daily")
    # made here, as random data take the guest long; each chunk is another one
    written = guest.appliance.folder / "changed"
    written.write_bytes(b"".join(patterned(number) for number in range(changed * MIB // CHUNK_SIZE)))
    guest.shell(f"dd if={written} of=/dev/vg/web1 bs=1M seek=60K conv=fsync status=none", limit=limit)
    guest.backy("-b", WEB1, "backup", "daily", limit=limit)

    first, second = guest.status(WEB1)
    assert guest.snapshots("vg") == [f"web1.backy-{second['id']}"]
    assert (first["size"], first["consistency"]) == (100 * 2**30, "crash")
    assert first["bytes_read"] == 12 * MIB
    assert changed * MIB <= second["bytes_read"] <= 1.05 * changed * MIB

    guest.backy("-b", WEB1, "restore", "lvm:vg/copy", limit=limit)
    for begin, length in ((0, 6), (50 * 1024, 4), (60 * 1024, changed + 1)):
        guest.shell(f"cmp -i {begin}M -n {length}M /dev/vg/web1 /dev/vg/copy", limit=limit)
    used = guest.shell("lvs --noheadings -o data_percent vg/copy vg/web1").out.split()
    assert float(used[0]) <= 1.1 * float(used[1])
    written.unlink()


def test_every_revision_is_right_whatever_happens_to_the_volume(
    guest: Guest, rounds: Callable[[int, int], int]
) -> None:
    number, seed = rounds(2, 30), rounds(1, random.randrange(10**6))
    # snapshots of others pile up
    guest.shell(f"lvcreate -qq -L {rounds(128, 2048)}M -T vg/pool && lvcreate -qq -V 20M -T vg/pool -n web1")
    ended = guest.shell(f"cd {FOLDER}; backy {ROUNDS} {number} {seed} 2>&1", check=False, limit=LONG)
    assert ended.code == 0, (seed, ended.out[-4000:])
    assert len(ended.out.splitlines()) > number
