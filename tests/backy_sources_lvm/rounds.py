"""Rounds of writes, discards, resizes and snapshots of others, each with a backup and a restore. Runs in the guest.

Prints a line for each round. A round that goes wrong raises.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

from backy.cli.main import main

MIB = 2**20
BLOCK = 2**16
WEB1 = "/dev/vg/web1"


def lvm(*command: object) -> str:
    words = [str(word) for word in command]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def backy(*arguments: object) -> None:
    """Run a command in a child, as it ends its process."""
    child = os.fork()
    if not child:
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(70)
    assert os.waitpid(child, 0)[1] == 0, arguments


def size() -> int:
    descriptor = os.open(WEB1, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def write(chance: random.Random) -> None:
    with Path(WEB1).open("r+b") as device:
        for _ in range(chance.randint(1, 4)):
            length = chance.choice([512, 4096, BLOCK, 3 * BLOCK, 4 * MIB])
            device.seek(chance.randrange(0, size() - length + 1, 512))
            device.write(chance.choice([chance.randbytes(length), bytes(length)]))
        device.flush()
        os.fsync(device.fileno())


def discard(chance: random.Random) -> None:
    length = chance.choice([4096, BLOCK, 5 * BLOCK, 9 * MIB])
    offset = chance.randrange(0, size() - length + 1, 4096)
    lvm("blkdiscard", "--offset", offset, "--length", length, WEB1)


def resize(chance: random.Random) -> None:
    # to the size that it has already, LVM refuses
    chosen = chance.choice([mib for mib in (12, 16, 20, 24, 28) if mib * MIB != size()])
    lvm("lvresize", "-qq", "--yes", "--force", "--size", f"{chosen}M", "vg/web1")


def shrink_and_grow(chance: random.Random) -> None:
    now = size()
    lvm("lvresize", "-qq", "--yes", "--force", "--size", f"{now - 4 * MIB}b", "vg/web1")
    lvm("lvresize", "-qq", "--yes", "--force", "--size", f"{now}b", "vg/web1")


def snapshot_of_another(chance: random.Random) -> None:
    lvm("lvcreate", "-qq", "--snapshot", "--name", f"other{chance.randrange(10**9)}", "vg/web1")
    write(chance)


def forget_snapshots_of_others(chance: random.Random) -> None:
    for name in lvm("lvs", "--noheadings", "-o", "lv_name", "vg").split():
        if name.startswith("other"):
            lvm("lvremove", "-qq", "--yes", f"vg/{name}")
    discard(chance)


ACTS = (write, write, discard, resize, shrink_and_grow, snapshot_of_another, forget_snapshots_of_others)


def digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    backy("-b", "web1", "init", "lvm", "vg/web1")
    for number in range(rounds):
        acts = [write] if not number else [chance.choice(ACTS) for _ in range(chance.randint(1, 3))]
        for act in acts:
            act(chance)
        backy("-b", "web1", "backup", "daily")
        Path("restored").unlink(missing_ok=True)
        backy("-b", "web1", "restore", "restored")
        names = [act.__name__ for act in acts]
        assert digest("restored") == digest(WEB1), (number, names)
        own = [name for name in lvm("lvs", "--noheadings", "-o", "lv_name", "vg").split() if ".backy-" in name]
        assert len(own) == 1, (number, own)
        print(number, names)  # noqa: T201  # for the host


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
