"""A bitmap may be lost in many ways. Then the disk is read in full, with a word why, and is right."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.api import CHUNK_SIZE, SourceBusyError
from tests.backups import Backups
from tests.virtual import Virtual

MIB = 2**20


@pytest.fixture
def backups(machine: Virtual, source_of: Callable) -> Backups:
    made = Backups(source_of(machine), machine.content)
    assert made.run() is None
    machine.write(MIB, b"changed " * 64)
    return made


def bitmap(machine: Virtual) -> str:
    (name,) = (name for name in machine.nodes()["disk"] if name.startswith("backy.") and not name.endswith(".mark"))
    return name


def bitmaps(machine: Virtual) -> list[dict[str, Any]]:
    nodes = machine.command("query-named-block-nodes", flat=True)
    (found,) = (node.get("dirty-bitmaps", []) for node in nodes if node["node-name"] == "disk")
    return found


def remove(machine: Virtual) -> None:
    machine.command("block-dirty-bitmap-remove", node="disk", name=bitmap(machine))


def rename(machine: Virtual) -> None:
    machine.command("block-dirty-bitmap-add", node="disk", name="renamed")
    machine.command("block-dirty-bitmap-merge", node="disk", target="renamed", bitmaps=[bitmap(machine)])
    remove(machine)


def stop(machine: Virtual) -> None:
    machine.command("block-dirty-bitmap-disable", node="disk", name=bitmap(machine))


def crash(machine: Virtual) -> None:
    # what was not written to the image is lost in any case
    machine.io("flush")
    machine.end(signal.SIGKILL)
    machine.start()


def restart(machine: Virtual) -> None:
    machine.end()
    machine.start()


def crash_later(machine: Virtual) -> None:
    # only now the image has the bitmap
    restart(machine)
    crash(machine)


MISSING = "there is no bitmap since"
SHRUNK = "lacks what the disk lost when it was made smaller"
COPIED = "is a copy, as an external snapshot makes it, and has only what was written later"
CRASHED = "could not be saved, as after a crash of QEMU"


def shrink_and_grow(machine: Virtual) -> None:
    size = machine.size
    machine.resize(2 * CHUNK_SIZE)
    machine.resize(size)
    # as a guest does that puts the copy of its partition table at the new end
    machine.write(size - 512, b"end " * 128)


def copied_by_another_program(machine: Virtual) -> None:
    name = bitmap(machine)
    remove(machine)
    machine.command("block-dirty-bitmap-remove", node="disk", name=f"{name}.mark")
    machine.command("block-dirty-bitmap-add", node="disk", name=name)


CASES = [
    # how it is lost, and the words for qcow2 and for raw, which can not keep one
    (remove, MISSING, MISSING),
    (rename, MISSING, MISSING),
    (stop, "was stopped by another program", "was stopped by another program"),
    (restart, None, MISSING),
    (crash_later, CRASHED, MISSING),
    (crash, MISSING, MISSING),
    (lambda machine: machine.resize(5 * CHUNK_SIZE), None, None),
    (shrink_and_grow, SHRUNK, SHRUNK),
    (copied_by_another_program, COPIED, COPIED),
    (lambda machine: machine.resize(2 * CHUNK_SIZE), SHRUNK, SHRUNK),
]


@pytest.mark.parametrize("image_format", ["qcow2", "raw"])
def test_a_lost_bitmap_costs_one_reading(machine: Virtual, backups: Backups, caplog: pytest.LogCaptureFixture) -> None:
    for lose, *words in CASES:
        expected = words[machine.format == "raw"]
        caplog.clear()
        machine.write(MIB, os.urandom(512))
        grown = -machine.size
        lose(machine)
        grown += machine.size

        # the one before this was read in full as often as not, and now what has changed is known again
        assert backups.run() == (65536 + max(grown, 0) if expected is None else None), lose

        assert ("is read in full" in caplog.text) == (expected is not None)
        assert (expected or "") in caplog.text
        assert len([name for name in machine.nodes()["disk"] if name.startswith("backy")]) == 2


def test_a_bitmap_that_is_used_costs_one_reading(
    machine: Virtual, backups: Backups, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as host:
        # a migration goes through the bitmaps, and this one never ends
        host.bind(str(folder / "host"))
        host.listen()
        capabilities = [{"capability": "dirty-bitmaps", "state": True}]
        machine.command("migrate-set-capabilities", capabilities=capabilities)
        machine.command("migrate-set-parameters", max_bandwidth=1)
        machine.command("migrate", uri=f"unix:{folder / 'host'}")
        connection, _ = host.accept()
        while not any(bitmap["busy"] for bitmap in bitmaps(machine)):
            pass
        assert backups.run() is None
        connection.close()
    assert "the bitmap since revision revision1 is used by another program" in caplog.text
    machine.command("migrate_cancel")
    while any(bitmap["busy"] for bitmap in bitmaps(machine)):
        pass
    machine.write(MIB, os.urandom(512))
    assert backups.run() == 65536
    assert len(bitmaps(machine)) == 2


@pytest.mark.parametrize("image_format", ["qcow2"])
def test_a_job_of_another_program_is_left_alone(machine: Virtual, backups: Backups) -> None:
    machine.write(0, b"x" * 8 * MIB)
    machine.command("blockdev-add", driver="null-co", node_name="null", size=3 * CHUNK_SIZE + 65536)
    words = {"device": "disk", "target": "null", "sync": "incremental", "bitmap": bitmap(machine), "speed": 65536}
    machine.command("blockdev-backup", job_id="other", **words)
    before = machine.nodes()

    with pytest.raises(SourceBusyError, match="another program backs up, copies or merges the disk"):
        backups.run()

    assert machine.nodes() == before
    machine.command("block-job-cancel", device="other", force=True)
    while machine.command("query-block-jobs"):
        pass
    machine.command("blockdev-del", node_name="null")
    assert backups.run() == 8 * MIB
