"""Power losses at the flushes of a real file system under a repository. Runs in the guest.

Arguments: the storage, what is done, how many flushes to try. Prints a line for each. What goes wrong raises.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backy.cli.main import main

sys.path.insert(0, str(Path(sys.argv[0]).parent))
import log_writes

MAKE = {"chunked": "mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0", "cow": "mkfs.xfs -q -K -f"}
MIB = 2**20
SIZES = {"chunked": 48 * MIB, "cow": 320 * MIB}
ACTS = {
    "backup": [["backup", "daily"]],
    "purge": [["forget", "-r", "1"], ["purge"]],
    "convert": [["convert", "--storage", "chunked"]],
}
REPOSITORY = "mounted/repository"


def shell(script: str) -> str:
    return subprocess.run(["bash", "-ec", script], check=True, capture_output=True, text=True).stdout


def backy(*arguments: object) -> str:
    """Run a command in a child, as it ends its process; return what it prints."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            main(["-b", REPOSITORY, *map(str, arguments)])
        except SystemExit as ended:
            sys.stdout.flush()
            os._exit(int(ended.code or 0))
        finally:
            os._exit(70)
    code = os.waitpid(child, 0)[1]
    assert code == 0, arguments
    return Path("out").read_text()


def restored(revision: str) -> str:
    Path("restored").unlink(missing_ok=True)
    backy("restore", "-r", revision, "restored")
    return digest("restored")


def digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def change(chance: random.Random) -> None:
    with Path("image").open("r+b") as image:
        image.seek(chance.randrange(5 * MIB))
        image.write(chance.randbytes(MIB))


def record(storage: str, acts: list[list[str]], disk: str, log: str) -> dict[str, str]:
    """Have all writes of some acts recorded; return the digests of the revisions that must survive."""
    chance = random.Random(1)
    Path("image").write_bytes(chance.randbytes(6 * MIB))
    sectors = SIZES[storage] // 512
    shell(f"dmsetup create logged --table '0 {sectors} log-writes {disk} {log}'")
    shell(f"{MAKE[storage]} /dev/mapper/logged && mkdir -p mounted && mount /dev/mapper/logged mounted")
    backy("init", "file", str(Path("image").absolute()), "--storage", storage)
    shell(f"chmod u+w {REPOSITORY}/config; echo 'trash: 0' >> {REPOSITORY}/config")
    digests = {}
    for _ in range(2):
        backy("backup", "daily")
        digests[Path(REPOSITORY, "last.rev").resolve().stem] = digest("image")
        change(chance)
    shell("sync; dmsetup message logged 0 mark begin")
    for act in acts:
        backy(*act)
    shell("dmsetup message logged 0 mark end; umount mounted; dmsetup remove logged; blockdev --flushbufs " + log)
    return dict(list(digests.items())[1:]) if ["purge"] in acts else digests


def replayed(storage: str, log: str, wanted: int, check: Callable[[int], None]) -> None:
    """Write what was recorded to the file `disk`, and check at some of the flushes between the marks."""
    with Path(log).open("rb") as recorded:
        begun, points = False, []
        for number, write in enumerate(log_writes.read(recorded)):
            begun = (begun or write.mark == "begin") and write.mark != "end"
            if begun and write.is_durable:
                points.append(number)
    chosen = set(random.Random(2).sample(points, min(wanted, len(points))))
    with Path(log).open("rb") as recorded, Path("disk").open("wb", buffering=0) as disk:
        disk.truncate(SIZES[storage])
        for number, write in enumerate(log_writes.read(recorded)):
            os.pwrite(disk.fileno(), write.data, write.offset)
            if number in chosen:
                check(number)


def run(storage: str, act: str, wanted: int, disk: str, log: str) -> None:
    digests = record(storage, ACTS[act], disk, log)

    def check(number: int) -> None:
        shell("cp --sparse=always disk copy && mount -o loop copy mounted")
        try:
            for revision, expected in digests.items():
                assert restored(revision) == expected, (number, revision)
            backy("backup", "daily")
            assert restored("last") == digest("image"), number
        finally:
            shell("umount mounted; rm copy")
        print("survived", number)  # noqa: T201  # for the host

    replayed(storage, log, wanted, check)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
