"""The contract of sources, kept by logical volumes. Runs in the guest, without pytest, which takes longer than that.

Arguments: whether volumes are thin or thick, and the tests. Prints the name of each that has passed.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from backy.testing.source_contract import SourceContract, SourceUnderTest, _config, _made

MIB = 2**20
DEVICE = Path("/dev/vg/disk")
MAKE = {"thin": ["-V", "12M", "-T", "vg/pool"], "thick": ["-L", "12M", "vg"]}


def lvm(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def write(offset: int, data: bytes) -> None:
    with DEVICE.open("r+b") as device:
        device.seek(offset)
        device.write(data)
        device.flush()
        os.fsync(device.fileno())


def made(kind: str) -> SourceUnderTest:
    """Make a volume of data, zeroes, and what is not mapped if it is thin."""
    lvm("lvcreate", "-qq", "--yes", *MAKE[kind], "-n", "disk")
    write(0, os.urandom(5 * MIB))
    write(10 * MIB + 512, bytes(MIB) + b"end")
    return SourceUnderTest(
        type="lvm",
        argument="vg/disk",
        content=DEVICE.read_bytes,
        write=write,
        resize=lambda size: lvm("lvresize", "-qq", "--yes", "--force", "--size", f"{size}b", "vg/disk"),
        remove=lambda: lvm("lvremove", "-qq", "--yes", "vg/disk"),
        frozen=True,
        wrong_argument="disk",
    )


def run(kind: str, name: str) -> None:
    """Run a test with what it asks for. One that is skipped raises."""
    test = getattr(SourceContract(), name)
    subject = made(kind)
    with tempfile.TemporaryDirectory() as folder:
        given = {"subject": subject, "tmp_path": Path(folder)}
        wanted = inspect.signature(test).parameters
        if "source" in wanted:
            given["source"] = _made(subject, _config(subject), Path(folder))
        test(**{parameter: given[parameter] for parameter in wanted})
    # those that are there of the volume and of what backy has made
    subprocess.run(["lvremove", "-qq", "--yes", "vg/disk", "@backy-contractjob"], check=False, capture_output=True)
    print(name)  # noqa: T201  # for the host


if __name__ == "__main__":
    for test in sys.argv[2:]:
        run(sys.argv[1], test)
