"""Tests with a real QEMU. The tests play the guest: they write to the disk through FUSE."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from backy_sources_qemu.machine import SCRATCH, Machine
from backy_sources_qemu.source import QemuSource

from backy.api import CHUNK_SIZE, Extent, SourceError
from backy.testing.source_contract import SourceContract, SourceUnderTest

SIZE = 3 * CHUNK_SIZE + 4096


class Guest:
    """A virtual machine with one disk."""

    def __init__(self, folder: Path, image_format: str) -> None:
        self.folder = folder
        self.disk = folder / "guest"
        self.disk.touch()
        self.qmp = folder / "qmp"
        self._format = image_format
        command = ["qemu-img", "create", "-q", "-f", image_format, folder / "image", str(SIZE)]
        subprocess.run(command, check=True)

    def start(self) -> None:
        # The storage daemon is QEMU without a machine: the same block layer and the same QMP.
        words = {
            "--blockdev": [
                f"driver=file,filename={self.folder}/image,node-name=file",
                f"driver={self._format},file=file,node-name=disk",
            ],
            "--chardev": [f"socket,id=qmp,path={self.qmp},server=on,wait=off"],
            "--monitor": ["chardev=qmp"],
            "--export": [f"type=fuse,id=guest,node-name=disk,mountpoint={self.disk},writable=on"],
            "--pidfile": [f"{self.folder}/pid"],
        }
        options = [word for option, values in words.items() for value in values for word in (option, value)]
        subprocess.run(["qemu-storage-daemon", *options, "--daemonize"], check=True)

    def stop(self) -> None:
        pid = int((self.folder / "pid").read_text())
        # A daemon is no child, so it can not be waited for by wait().
        descriptor = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(30_000), "QEMU does not end"
        os.close(descriptor)
        # Where the machine is busy, the daemon may end before its mount does.
        subprocess.run(["umount", "--lazy", self.disk], check=False, capture_output=True)

    def write(self, offset: int, data: bytes) -> None:
        with self.disk.open("r+b", buffering=0) as stream:
            stream.seek(offset)
            stream.write(data)

    def bitmaps(self) -> set[str]:
        with Machine.connected(self.qmp, "disk") as machine:
            return set(machine.bitmaps("backy-"))


@pytest.fixture(params=["qcow2", "raw"])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Guest]:
    made = Guest(tmp_path, request.param)
    made.start()
    # Data at both ends and around a chunk's edge, and holes between them.
    made.write(0, b"begin" * 2000)
    made.write(CHUNK_SIZE + 100, b"middle" * 2000)
    made.write(SIZE - 5000, b"end" * 1000)
    yield made
    made.stop()


class TestQemu(SourceContract):
    @pytest.fixture
    def subject(self, guest: Guest) -> SourceUnderTest:
        # No `resize` and `remove`: the daemon keeps the image open in its size.
        return SourceUnderTest(
            "qemu",
            f"{guest.qmp},disk",
            guest.disk.read_bytes,
            write=guest.write,
            frozen=True,
            wrong_argument="/run/vm7.qmp",
        )


@pytest.fixture
def source(guest: Guest, tmp_path: Path) -> QemuSource:
    return QemuSource(guest.qmp, "disk", tmp_path, "job")


def changed(source: QemuSource, revision_id: str, parent: str | None) -> list[Extent] | None:
    with source.snapshot(revision_id, parent) as snapshot:
        changes = snapshot.changes()
        return None if changes is None else list(changes)


def test_only_what_was_written_is_a_change(guest: Guest, source: QemuSource) -> None:
    assert changed(source, "one", None) is None
    guest.write(2 * CHUNK_SIZE, b"x")
    # Bitmaps of QEMU have one bit for 64 KiB.
    assert changed(source, "two", "one") == [Extent(2 * CHUNK_SIZE, 65536, data=True)]
    assert changed(source, "three", "two") == []


def test_holes_are_told(source: QemuSource) -> None:
    with source.snapshot("one", None) as snapshot:
        assert any(not extent.data and extent.length > CHUNK_SIZE // 2 for extent in snapshot.extents())


def test_one_bitmap_is_kept_and_failures_leave_it(guest: Guest, source: QemuSource) -> None:
    changed(source, "one", None)
    guest.write(0, b"x")

    def fail() -> None:
        guest.write(CHUNK_SIZE, b"y")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), source.snapshot("two", "one"):
        fail()
    assert guest.bitmaps() == {"backy-job-one"}
    assert changed(source, "three", "one") == [Extent(0, 65536, data=True), Extent(CHUNK_SIZE, 65536, data=True)]
    assert guest.bitmaps() == {"backy-job-three"}
    source.retain([])
    assert guest.bitmaps() == set()


def test_what_a_killed_backup_left_is_cleaned_up(guest: Guest, source: QemuSource, tmp_path: Path) -> None:
    changed(source, "one", None)
    # The steps of a backup without its end.
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "left", str(SIZE)], check=True)
    with Machine.connected(guest.qmp, "disk") as machine:
        machine.begin(tmp_path / "left", "backy-job-killed", "backy-job-one")
        machine.export(tmp_path / "socket", "backy-job-one")
    assert changed(source, "two", "one") is not None
    assert guest.bitmaps() == {"backy-job-two"}
    with Machine.connected(guest.qmp, "disk") as machine:
        assert SCRATCH not in {node["node-name"] for node in machine.command("query-named-block-nodes", flat=True)}


def test_a_machine_that_was_stopped_reads_everything_unless_bitmaps_are_in_the_image(
    guest: Guest, source: QemuSource
) -> None:
    changed(source, "one", None)
    # Raw images have no place for a bitmap.
    guest.stop()
    guest.start()
    assert changed(source, "two", "one") == ([] if guest._format == "qcow2" else None)


def test_an_unknown_node_is_named(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no block node 'disc'; there are: disk, file"):
        changed(QemuSource(guest.qmp, "disc", tmp_path, "job"), "one", None)


def test_no_machine_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^QEMU at .*/nothing: .*$"):
        changed(QemuSource(tmp_path / "nothing", "disk", tmp_path, "job"), "one", None)
