"""Two backups of one image at once, from one repository and from two, and servers that die."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backy.api import CHUNK_SIZE, Job, SourceBusyError, SourceError
from backy.errors import ExitCode
from backy_sources_ceph.source import _LEASES, Lease, Owner, leased

ONE, OTHER = Owner("one", "web1", "backup1"), Owner("other", "web1", "backup2")
OBJECT = _LEASES + "image"
PATIENCE = 60


@contextmanager
def server(disk):
    """Connect to the pool as another backup server does."""
    with disk.cluster.connected() as connection, connection.open_ioctx(disk.pool) as pool:
        yield pool


def taken(pool, owner: Owner, seconds: int) -> Lease:
    lease = Lease(pool, "image", owner, "source vms/web1", seconds)
    lease.take()
    return lease


def leases(pool) -> list[str]:
    return [found.key for found in pool.list_objects() if found.key.startswith(_LEASES)]


def test_an_image_that_another_repository_backs_up_is_busy(disks, repositories, backy, backup) -> None:
    disk = disks(2 * CHUNK_SIZE)
    one, other = repositories(disk), repositories(disk)
    assert backy("-b", other.directory, "backup", "daily").code == ExitCode.DONE
    before = disk.snapshots(), disk.metadata()
    with one.source().snapshot("running", None):
        during = disk.snapshots(), disk.metadata()
        result = backy("-b", other.directory, "backup", "daily")
        assert result.code == ExitCode.BUSY
        assert result.err.startswith(
            f"Error: source {disk.specification} is being backed up by job '{one.directory.name}' on "
        )
        assert result.err.endswith("; try again later\n")
        assert (disk.snapshots(), disk.metadata()) == during
    assert len(other.records.history()) == 1
    assert set(before[0]) < set(disk.snapshots())
    backup(other)


def test_of_many_that_begin_at_once_one_at_a_time_gets_the_image(disks, repositories) -> None:
    disk = disks(2 * CHUNK_SIZE)
    barrier = threading.Barrier(4)

    def attempt(repository) -> bool:
        barrier.wait()
        try:
            with repository.source().snapshot("running", None):
                barrier.wait()
                return True
        except SourceBusyError:
            barrier.wait()
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(attempt, [repositories(disk) for _ in range(4)])) == [False, False, False, True]


def test_other_images_are_not_busy_and_nothing_is_left(disks, repositories) -> None:
    one, other = disks(CHUNK_SIZE), disks(CHUNK_SIZE)
    with repositories(one).source().snapshot("running", None), repositories(other).source().snapshot("running", None):
        assert len(leases(one.ioctx)) == 2
    assert leases(one.ioctx) == []


def test_a_lease_that_is_held_is_renewed(disks) -> None:
    disk = disks(CHUNK_SIZE)
    with server(disk) as one, server(disk) as other, leased(one, "image", ONE, "source x", seconds=1) as lease:
        renewals = count_renewals(lease, 6)
        with pytest.raises(SourceBusyError, match="is being backed up by job 'web1' on backup1"):
            taken(other, OTHER, 60)
        assert renewals.wait(PATIENCE)
        with pytest.raises(SourceBusyError):
            taken(other, OTHER, 60)
        lease.check()


def count_renewals(lease: Lease, number: int) -> threading.Event:
    """Return what is set after so many renewals: longer than the lease would last."""
    enough, left, lock = threading.Event(), iter(range(number - 1)), lease._lock

    def counted() -> None:
        lock()
        if next(left, None) is None:
            enough.set()

    lease._lock = counted  # type: ignore[method-assign]  # to see it called
    return enough


def test_a_dead_servers_lease_runs_out(disks) -> None:
    disk = disks(CHUNK_SIZE)
    with server(disk) as dead, server(disk) as other:
        taken(dead, ONE, 1)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                lease = taken(other, OTHER, 60)
                break
            except SourceBusyError:
                assert time.monotonic() < deadline
        lease.release()


def test_a_server_that_was_out_for_too_long_does_not_go_on(disks, caplog: pytest.LogCaptureFixture) -> None:
    disk = disks(CHUNK_SIZE)
    with server(disk) as one, server(disk) as other:
        with leased(one, "image", ONE, "source vms/web1", seconds=1) as lease:
            one.unlock(OBJECT, "backy", lease._cookie)
            taken(other, OTHER, 60)
            deadline = time.monotonic() + PATIENCE
            while not lease._lost:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(SourceError, match="source vms/web1 was taken over by another backup"):
                lease.check()
        assert "source vms/web1: the lease was not given back" in caplog.text
        with pytest.raises(SourceBusyError, match="on backup2"):
            taken(one, ONE, 60)


def test_a_lease_that_is_lost_ends_reading(disks, repositories) -> None:
    disk = disks(CHUNK_SIZE)

    def read(source) -> None:
        with source.snapshot("running", None) as snapshot:
            # Behind the guard that the core puts around what a plugin makes.
            snapshot._guarded._check.__self__._lost = True
            snapshot.pread(0, 10)

    with pytest.raises(SourceError, match="was taken over by another backup"):
        read(repositories(disk).source())


def test_an_owner_can_be_read_by_other_servers(tmp_path) -> None:
    owner = Owner.of(Job("wéb1", "webid", tmp_path))

    assert Owner.decode(owner.encode()) == owner
    assert str(owner) == f"job 'wéb1' on {owner.host}"
    assert [Owner.decode(text) for text in ("", "{}", "[]", "\xff", b"\xff", '{"id": 1}')] == [None] * 6
