"""Images of machines that are shut down."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import Job, SourceBusyError, SourceError
from backy.config import typed
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.disks import QemuSource
from tests.backups import Backups
from tests.virtual import Server, Virtual

MIB = 2**20


def source(path: Path, job_id: str = "job-of-web1", **keys: object) -> QemuSource:
    config = typed({"type": "qemu", "image": str(path), **keys}, QemuConfig, "source")
    return QemuSource(config, Job("web1", job_id, Path("/nowhere")))


def bitmaps(path: Path) -> int:
    told = subprocess.run(["qemu-img", "info", path], check=True, capture_output=True, text=True).stdout
    return told.count("name: backy.")


def test_a_machine_goes_off_and_on(machine: Virtual, source_of: Callable) -> None:
    """What is written while backy does not look is in the bitmap, whoever runs at the time."""
    source = source_of(machine, image=str(machine.image))
    backups = Backups(source, machine.content)
    backups.run()
    machine.write(MIB, b"on" * 256)
    machine.end()
    assert backups.run() == 65536
    machine.start()
    machine.write(2 * MIB, b"up" * 256)
    assert backups.run() == 65536
    machine.end()
    assert backups.run() == 0
    assert bitmaps(machine.image) == 2
    source.retain([])
    assert bitmaps(machine.image) == 0


def test_an_image_that_is_used_is_refused(machine: Virtual) -> None:
    with (
        pytest.raises(
            SourceBusyError, match=r"image.qcow2.*; a machine uses it: 'domain' or 'qmp' let backy reach that$"
        ),
        source(machine.image).snapshot("revision1", None),
    ):
        pass


def test_no_machine_starts_while_its_qcow2_image_is_read(machine: Virtual) -> None:
    machine.end()
    with source(machine.image).snapshot("revision1", None) as snapshot:
        with pytest.raises(subprocess.CalledProcessError):
            machine.start()
        assert snapshot.pread(0, 512)
        assert snapshot.consistency == "crash"
    # nor does the server of the image outlive the backup
    machine.start()


@pytest.mark.parametrize("image_format", ["raw"])
def test_a_machine_that_starts_while_its_raw_image_is_read_is_noticed(machine: Virtual) -> None:
    machine.end()
    Backups(source(machine.image), machine.content).run()
    with source(machine.image).snapshot("revision2", "revision1") as snapshot:
        assert snapshot.changes() is None
        machine.start()
        assert snapshot.consistency == "crash"
        machine.write(0, b"torn" * 128)
        assert snapshot.consistency == "none"


@pytest.mark.parametrize("written", ["disk.qcow2", "disk.raw", "below.raw", None])
def test_what_is_written_past_the_locks_is_noticed(
    folder: Path, image_of: Callable[..., Path], written: str | None
) -> None:
    path = image_of(folder, "raw" if written == "disk.raw" else "qcow2", behind=written != "disk.raw")
    with source(path).snapshot("revision1", None) as snapshot:
        assert snapshot.consistency == "crash"
        if written:
            with path.with_name(written).open("r+b") as stream:
                stream.seek(2 * MIB)
                stream.write(b"torn")
        assert snapshot.consistency == ("none" if written else "crash")


def test_what_is_written_to_a_file_of_data_is_noticed(folder: Path) -> None:
    path = folder / "disk.qcow2"
    options = f"data_file={folder}/data.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, "1M"], check=True)
    with source(path).snapshot("revision1", None) as snapshot:
        assert snapshot.consistency == "crash"
        (folder / "data.raw").write_bytes(b"torn" * 256)
        assert snapshot.consistency == "none"


def test_nobody_knows_of_what_is_elsewhere(folder: Path, serve: Callable[..., Server]) -> None:
    (folder / "below").write_bytes(b"below" * 1024)
    below = serve("qemu-nbd", "-r", "-f", "raw", folder / "below")
    path = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", below.uri, path], check=True)
    with source(path).snapshot("revision1", None) as snapshot:
        assert snapshot.pread(0, 5120) == b"below" * 1024
        assert snapshot.consistency == "unknown"


@pytest.mark.parametrize(
    ("version", "job_id", "word"),
    # an image of the oldest version has no bitmaps, and there is a limit to names
    [("0.10", "job", ""), ("1.1", "j" * 1020, "the next backup reads everything, as there will be no bitmap")],
)
def test_an_image_that_takes_no_bitmap_is_read_in_full(
    folder: Path, version: str, job_id: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"compat={version}", path, "16M"], check=True)
    for parent in (None, "revision1"):
        with source(path, job_id).snapshot("revision1", parent) as snapshot:
            assert snapshot.size == 16 * MIB
            assert snapshot.changes() is None
    assert bitmaps(path) == 0
    assert word in caplog.text


def test_an_image_whose_name_belies_its_content_is_refused(folder: Path, image_of: Callable[..., Path]) -> None:
    path = image_of(folder, "qcow2").rename(folder / "disk.img")
    with (
        pytest.raises(SourceError, match=r"disk.img begins like qcow2; write the key 'format' into the section"),
        source(path).snapshot("revision1", None),
    ):
        pass
    with source(path, format="qcow2").snapshot("revision1", None) as snapshot:
        assert snapshot.pread(512, 1024) == b"\7" * 1024


def test_one_backup_of_an_image_runs_at_a_time(folder: Path, image_of: Callable[..., Path]) -> None:
    path = image_of(folder, "qcow2")
    with (
        source(path).snapshot("revision1", None),
        pytest.raises(SourceBusyError, match="another backup of it runs"),
        source(path).snapshot("revision2", None),
    ):
        pass
    with source(path).snapshot("revision2", None):
        pass


def test_a_killed_backup_leaves_no_server_and_the_next_one_removes_its_bitmap(machine: Virtual) -> None:
    machine.end()
    backups = Backups(source(machine.image), machine.content)
    backups.run()
    before = set(Path("/tmp").glob("libnbd*/sock"))
    with warnings.catch_warnings(action="ignore"):
        child = os.fork()
    if not child:
        try:
            with source(machine.image).snapshot("killed-revision", backups.last) as snapshot:
                snapshot.pread(0, 512)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    # what libnbd itself leaves: sockets on which nobody listens, unlike those of tests that run at the same time
    for left in set(Path("/tmp").glob("libnbd*/sock")) - before:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(left)) == errno.ECONNREFUSED:
                shutil.rmtree(left.parent)
    assert bitmaps(machine.image) == 4
    machine.start()
    machine.write(MIB, b"x" * 512)
    machine.end()
    assert backups.run() == 65536
    assert bitmaps(machine.image) == 2
