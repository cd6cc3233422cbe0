"""Clusters that do not answer, are not there, or refuse: one line each, and in a bounded time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, SourceError
from backy.errors import ExitCode
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy_sources_ceph.snapshot import RbdSnapshot
from backy_sources_ceph.source import _LEASES

TIMEOUTS = "".join(f"{key} = 3\n" for key in ("client_mount_timeout", "rados_osd_op_timeout", "rados_mon_op_timeout"))


@pytest.fixture
def impatient(tmp_path: Path) -> Callable[[Path], str]:
    """Write a configuration like that of a cluster, in which time-outs are short."""

    def write(configuration: Path) -> str:
        (tmp_path / "impatient.conf").write_text(configuration.read_text() + TIMEOUTS)
        return str(tmp_path / "impatient.conf")

    return write


def at_read(number: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Do something before so many chunks have been read from a snapshot."""
    counter, pread = itertools.count(), RbdSnapshot.pread

    def counted(self: RbdSnapshot, offset: int, length: int) -> bytes:
        if next(counter) == number:
            action()
        return pread(self, offset, length)

    monkeypatch.setattr(RbdSnapshot, "pread", counted)


def test_an_osd_that_dies_during_a_backup(durable_disks, repositories, backup, impatient, monkeypatch) -> None:
    disk = durable_disks(40 * CHUNK_SIZE)
    for index in range(0, 40, 2):
        disk.write(index * CHUNK_SIZE, b"x" * CHUNK_SIZE)
    repository = repositories(disk, conf=impatient(disk.cluster.configuration))
    first = backup(repository)
    for index in range(40):
        disk.write(index * CHUNK_SIZE, b"%d" % index * 100000)
    with monkeypatch.context() as patches:
        at_read(15, patches, lambda: disk.cluster.kill("osd"))
        with pytest.raises(SourceError, match="the Ceph cluster does not answer"):
            backup(repository)
    assert repository.records.survey() == ([first], [])

    disk.cluster.start_osd()
    with disk.reconnected() as disk:
        left = disk.snapshots()
        assert left[0] == f"backy-{first.id}"
        assert len(left) == 2
        (lease,) = (found.key for found in disk.ioctx.list_objects() if found.key.startswith(_LEASES))
        disk.ioctx.remove_object(lease)  # it would run out in a minute
        second = backup(repository)
        assert disk.snapshots() == [f"backy-{second.id}"]
        assert second.parent == first.id
        assert second.statistics.bytes_read == 40 * CHUNK_SIZE


def test_a_monitor_that_is_dead(durable_disks, repositories, backup, impatient) -> None:
    disk = durable_disks(CHUNK_SIZE)
    repository = repositories(disk, conf=impatient(disk.cluster.configuration))
    disk.cluster.kill("mon")
    try:
        with pytest.raises(SourceError, match=f"{disk.name}: connecting to the Ceph cluster: .* does not answer$"):
            backup(repository)
    finally:
        disk.cluster.start_monitor()
    backup(repository)


def test_a_monitor_that_dies_before_the_snapshot(durable_disks, repositories, backup, impatient, monkeypatch) -> None:
    from backy_sources_ceph import CephSource

    disk = durable_disks(CHUNK_SIZE)
    repository = repositories(disk, conf=impatient(disk.cluster.configuration))
    freeze = CephSource.freeze

    def dying(source, image, name: str) -> bool:
        disk.cluster.kill("mon")
        return freeze(source, image, name)

    with monkeypatch.context() as patches:
        patches.setattr(CephSource, "freeze", dying)
        with pytest.raises(SourceError, match=r"the snapshot backy-\w+: the Ceph cluster does not answer"):
            backup(repository)
    disk.cluster.start_monitor()
    assert repository.records.survey() == ([], [])
    revision = backup(repository)
    assert disk.snapshots() == [f"backy-{revision.id}"]


NOT_ALLOWED = "the Ceph user may not do this: is its key right, and has it the capabilities 'profile rbd'?"


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"image": "missing"}, "{pool}/missing: it does not exist"),
        ({"pool": "missing"}, "missing/{image}: there is no pool 'missing'"),
        ({"namespace": "missing"}, "{pool}/missing/{image}: it does not exist"),
        (
            {"conf": "/missing.conf"},
            "{pool}/{image}: the configuration of the Ceph cluster, /missing.conf: it does not exist",
        ),
        (
            {"cluster": "missing", "conf": None},
            "{pool}/{image}: the configuration of the Ceph cluster, ceph.conf: it does not exist",
        ),
        ({"user": "missing"}, "{pool}/{image}: connecting to the Ceph cluster: " + NOT_ALLOWED),
    ],
)
def test_what_is_missing_is_named(disks, repositories, backy, keys: dict[str, str], cause: str) -> None:
    disk = disks(CHUNK_SIZE)
    repository = repositories(disk, **keys)
    result = backy("-b", repository.directory, "backup", "daily")

    assert result.code == ExitCode.FAILED
    assert result.err == f"Error: source {cause.format(pool=disk.pool, image=disk.name)}\n"
    assert repository.records.survey() == ([], [])


def test_a_user_without_the_right_to_make_snapshots(disks, repositories, backy, tmp_path: Path) -> None:
    disk = disks(CHUNK_SIZE)
    caps = ["mon", "profile rbd", "osd", "profile rbd-read-only"]
    (entry,) = disk.cluster.command("auth get-or-create", entity="client.reader", caps=caps)
    configuration = disk.cluster.configuration.read_text()
    (tmp_path / "keyring").write_text(f"[client.reader]\nkey = {entry['key']}\n")
    (tmp_path / "reader.conf").write_text(configuration + f"keyring = {tmp_path}/keyring\n")
    repository = repositories(disk, conf=str(tmp_path / "reader.conf"), user="client.reader")
    result = backy("-b", repository.directory, "backup", "daily")

    assert result.code == ExitCode.FAILED
    assert result.err == (
        f"Error: source {disk.specification}: the Ceph user may not do this: has it the capabilities 'profile rbd'?\n"
    )


def test_the_modules_of_ceph_may_be_missing(tmp_path: Path) -> None:
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "ceph-rbd", "pool": "vms", "image": "web1"}))
    repository = Repository.initialize(tmp_path / "vm", config)
    program = """
import sys, pathlib
import backy.debian
from backy.cli.main import main
backy.debian._FOLDER = pathlib.Path("/nowhere")
main(["-b", sys.argv[1], "backup", "daily"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, repository.directory], capture_output=True, text=True, check=False
    )

    assert done.returncode == ExitCode.FAILED
    assert done.stderr.startswith("Error: Python 3.")
    assert done.stderr.endswith("install Debian's package python3-rados\n")
    assert len(done.stderr.splitlines()) == 1
