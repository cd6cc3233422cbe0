"""Backups of images in a real cluster, compared with what `rbd export` gives."""

from __future__ import annotations

import random

import pytest

from backy.api import CHUNK_SIZE, SourceError
from backy.config import Size
from backy.integrity.damage import distrusted
from backy.repository.revision import Trust
from backy.system.limits import Limit

MIB = 2**20
LAYERING, STRIPING, DEFAULT = 1, 2, 61


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("features", [LAYERING, DEFAULT], ids=["exact", "fast-diff"])
def test_the_first_backup_reads_what_was_written_and_the_next_ones_what_changed(
    disks, repositories, backup, stored, features: int
) -> None:
    disk = disks(20 * CHUNK_SIZE + 1000, features=features)
    disk.write(0, noise(CHUNK_SIZE))
    disk.write(10 * CHUNK_SIZE + 4096, noise(4096))
    disk.write(20 * CHUNK_SIZE, noise(1000))
    repository = repositories(disk)

    for places, chunks in [((), 3), ((), 0), ((3 * CHUNK_SIZE + 5, 0), 2), ((15 * CHUNK_SIZE - 1,), 2)]:
        for place in places:
            disk.write(place, b"changed")
        revision = backup(repository)
        assert revision.statistics.bytes_read // CHUNK_SIZE == (chunks if places else max(chunks - 1, 0))
        assert revision.size == 20 * CHUNK_SIZE + 1000
        assert disk.snapshots() == list(disk.metadata()) == [f"backy-{revision.id}"]
        assert stored(repository, revision) == disk.exported(revision)


def test_a_sample_is_verified_unless_the_job_chooses_otherwise(disks, repositories, backup) -> None:
    disk = disks(300 * CHUNK_SIZE + 1000)
    disk.write(0, noise(CHUNK_SIZE))

    sample = backup(repositories(disk, verifier=None)).verification
    assert (sample.verifier, sample.total) == ("sample", 301)
    # three by chance, four by turns, and always the last one, as it is a short one
    assert 5 <= sample.checked <= 8
    full = backup(repositories(disk, verifier="full")).verification
    assert (full.verifier, full.checked) == ("full", 301)


def test_what_the_object_map_hides_is_found_and_doubted(disks, repositories, backup, stored) -> None:
    """Somebody writes to an object and not through librbd, so that Ceph does not know that it has changed."""
    disk = disks(8 * CHUNK_SIZE, features=DEFAULT)
    disk.write(0, noise(8 * CHUNK_SIZE))
    repository = repositories(disk, verifier="sample")
    first = backup(repository)
    with disk.opened() as image:
        disk.ioctx.write(f"{image.block_name_prefix()}.{4:016x}", b"hidden", 5000)
    # the fourth backup is the turn of this chunk; a sample may find it before
    disk.write(0, b"told")
    for _ in range(3):
        newest = backup(repository)
    assert stored(repository, newest) == disk.exported(newest)
    assert newest.statistics.bytes_read in {0, 8 * CHUNK_SIZE}
    history = repository.records.history()
    right = [stored(repository, revision) == stored(repository, newest) for revision in history]
    # all that took the chunk over without a look are wrong, whenever it was found
    assert [revision.trust is Trust.WRONG for revision in history] == [False, *(not same for same in right[1:])]
    assert all(revision.state.wrong.chunks == (4,) for revision in history if revision.state.wrong)
    assert history[0].id == first.id


@pytest.mark.parametrize("features", [LAYERING, DEFAULT], ids=["exact", "fast-diff"])
def test_what_is_discarded_or_zeroed_reads_as_zeroes(disks, repositories, backup, stored, features: int) -> None:
    disk = disks(8 * CHUNK_SIZE, features=features)
    disk.write(0, noise(8 * CHUNK_SIZE))
    repository = repositories(disk)
    backup(repository)
    with disk.opened() as image:
        image.discard(0, CHUNK_SIZE)
        image.discard(2 * CHUNK_SIZE + 4096, 3 * CHUNK_SIZE)
        image.write_zeroes(6 * CHUNK_SIZE, CHUNK_SIZE)
        image.write_zeroes(7 * CHUNK_SIZE + 512, 512)
    revision = backup(repository)

    assert stored(repository, revision) == disk.exported(revision)
    assert revision.statistics.bytes_read <= 4 * CHUNK_SIZE


@pytest.mark.parametrize("features", [LAYERING, DEFAULT], ids=["exact", "fast-diff"])
def test_an_image_may_grow_and_shrink(disks, repositories, backup, stored, features: int) -> None:
    disk = disks(4 * CHUNK_SIZE + 1000, features=features)
    disk.write(0, noise(4 * CHUNK_SIZE + 1000))
    repository = repositories(disk)
    backup(repository)
    for sizes in (
        [8 * CHUNK_SIZE],
        [9 * CHUNK_SIZE + 5],
        [3 * CHUNK_SIZE + 7],
        [MIB, 9 * CHUNK_SIZE],
        [1],
        [CHUNK_SIZE],
    ):
        with disk.opened() as image:
            for size in sizes:
                image.resize(size)
            image.write(noise(1), image.size() - 1)
        revision = backup(repository)
        assert revision.size == sizes[-1]
        assert stored(repository, revision) == disk.exported(revision)


@pytest.mark.parametrize(
    "options",
    [
        {"order": 25},
        {"order": 16},
        {"order": 20, "stripe_unit": 65536, "stripe_count": 3, "features": LAYERING | STRIPING},
        {"order": 20, "stripe_unit": 65536, "stripe_count": 3, "features": DEFAULT | STRIPING},
    ],
    ids=["large objects", "small objects", "stripes", "stripes and fast-diff"],
)
def test_objects_may_have_any_size_and_order(disks, repositories, backup, stored, options: dict[str, int]) -> None:
    disk = disks(5 * CHUNK_SIZE + 1000, **options)
    disk.write(CHUNK_SIZE - 100, noise(200))
    repository = repositories(disk)
    backup(repository)
    for place in (0, 2 * MIB + 65536, 4 * CHUNK_SIZE + 12345):
        disk.write(place, noise(70000))
    revision = backup(repository)

    assert stored(repository, revision) == disk.exported(revision)


def test_an_image_in_a_namespace_is_another_one_than_its_namesake(disks, repositories, backup, stored) -> None:
    import rbd

    plain = disks(CHUNK_SIZE)
    rbd.RBD().namespace_create(plain.ioctx, "customers")
    disk = disks(CHUNK_SIZE, namespace="customers")
    disk.write(0, noise(MIB))
    repository = repositories(disk)

    for _ in range(2):
        revision = backup(repository)
        assert disk.snapshots() == [f"backy-{revision.id}"]
        assert stored(repository, revision) == disk.exported(revision)
        disk.write(5, b"changed")


# what it goes without ---------------------------------------------------------------------------------------------


def test_everything_is_read_when_the_snapshot_was_removed(disks, repositories, backup, stored) -> None:
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(3 * CHUNK_SIZE))
    repository = repositories(disk)
    first = backup(repository)
    with disk.opened() as image:
        image.remove_snap(f"backy-{first.id}")
    disk.write(0, b"changed")
    second = backup(repository)

    assert second.statistics.bytes_read == 3 * CHUNK_SIZE
    assert stored(repository, second) == disk.exported(second)
    assert list(disk.metadata()) == disk.snapshots()


def test_everything_is_read_when_a_revision_is_distrusted(disks, repositories, backup) -> None:
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(3 * CHUNK_SIZE))
    repository = repositories(disk)
    distrusted(repository, backup(repository))
    second = backup(repository)

    assert second.statistics.bytes_read == 3 * CHUNK_SIZE
    assert disk.snapshots() == [f"backy-{second.id}"]


def test_everything_is_read_each_time_and_nothing_left_where_that_is_wanted(disks, repositories, backup) -> None:
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(3 * CHUNK_SIZE))
    repository = repositories(disk, **{"full-always": True})

    for _ in range(2):
        assert backup(repository).statistics.bytes_read == 3 * CHUNK_SIZE
        assert (disk.snapshots(), disk.metadata()) == ([], {})


def test_an_object_map_that_is_lost_costs_time_only(disks, repositories, backup, stored) -> None:
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(3 * CHUNK_SIZE))
    repository = repositories(disk)
    first = backup(repository)
    with disk.opened() as image:
        (snapshot,) = image.list_snaps()
        disk.ioctx.remove_object(f"rbd_object_map.{image.id()}.{snapshot['id']:016x}")
    disk.write(0, b"changed")
    disk.write(3 * CHUNK_SIZE, b"changed")
    second = backup(repository)

    assert second.parent == first.id
    assert stored(repository, second) == disk.exported(second)


def test_features_may_come_and_go(disks, repositories, backup, stored) -> None:
    import rbd

    maps = rbd.RBD_FEATURE_OBJECT_MAP | rbd.RBD_FEATURE_FAST_DIFF
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(3 * CHUNK_SIZE))
    repository = repositories(disk)
    backup(repository)
    for number, enabled in enumerate([False, True]):
        disk.write(number * CHUNK_SIZE, b"before")
        with disk.opened() as image:
            image.update_features(maps, enabled)
        disk.write(number * CHUNK_SIZE + 10, b"after")
        revision = backup(repository)
        assert stored(repository, revision) == disk.exported(revision)


# clones -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [LAYERING, DEFAULT], ids=["exact", "fast-diff"])
def test_a_clone_has_what_its_parent_has(disks, repositories, backup, stored, features: int) -> None:
    import rbd

    parent = disks(6 * CHUNK_SIZE)
    parent.write(0, noise(2 * CHUNK_SIZE))
    parent.write(5 * CHUNK_SIZE, noise(CHUNK_SIZE))
    with parent.opened() as image:
        image.create_snap("golden")
        image.protect_snap("golden")
    disk = disks(MIB)
    rbd.RBD().remove(disk.ioctx, disk.name)
    rbd.RBD().clone(parent.ioctx, parent.name, "golden", disk.ioctx, disk.name, features=features)
    repository = repositories(disk)

    def nothing(image) -> None:
        pass

    def change(image) -> None:
        image.write(b"changed", CHUNK_SIZE)
        image.discard(5 * CHUNK_SIZE, MIB)
        image.discard(0, CHUNK_SIZE)

    def shrink_and_grow(image) -> None:
        image.resize(MIB)
        image.resize(6 * CHUNK_SIZE)

    for step in (nothing, change, shrink_and_grow, lambda image: image.flatten()):
        with disk.opened() as image:
            step(image)
        revision = backup(repository)
        assert stored(repository, revision) == disk.exported(revision)
        assert disk.snapshots() == [f"backy-{revision.id}"]
    assert revision.statistics.bytes_read <= 6 * CHUNK_SIZE
    with parent.opened() as image:
        image.unprotect_snap("golden")


@pytest.mark.parametrize("cloned", [False, True])
def test_a_snapshot_that_is_protected_stays_until_that_is_over(
    disks, repositories, backup, caplog: pytest.LogCaptureFixture, cloned: bool
) -> None:
    import rbd

    disk = disks(2 * CHUNK_SIZE)
    disk.write(0, noise(MIB))
    repository = repositories(disk)
    first = f"backy-{backup(repository).id}"
    with disk.opened() as image:
        image.protect_snap(first)
    if cloned:
        rbd.RBD().clone(disk.ioctx, disk.name, first, disk.ioctx, "clone", features=LAYERING)
    disk.write(0, b"changed")

    second = backup(repository)
    assert disk.snapshots() == [first, f"backy-{second.id}"]
    assert f"the snapshot {first} is protected or has clones, and stays" in caplog.text
    assert second.statistics.bytes_read == CHUNK_SIZE

    with disk.opened() as image:
        if cloned:
            rbd.RBD().remove(disk.ioctx, "clone")
        image.unprotect_snap(first)
    third = backup(repository)
    assert disk.snapshots() == [f"backy-{third.id}"]


# snapshots of others ----------------------------------------------------------------------------------------------


def test_snapshots_of_others_stay(disks, repositories, backup, caplog: pytest.LogCaptureFixture) -> None:
    disk = disks(2 * CHUNK_SIZE)
    disk.write(0, noise(MIB))
    one, other = repositories(disk), repositories(disk)
    with disk.opened() as image:
        image.create_snap("monday")
        image.create_snap("backy-ofbacky2")
        image.create_snap("backy-brokenclaim")
        image.metadata_set("backy-brokenclaim", "{")
        image.metadata_set("rbd_conf", "whatever")
    for _ in range(2):
        first, second = backup(one), backup(other)

    assert disk.snapshots() == [
        "monday",
        "backy-ofbacky2",
        "backy-brokenclaim",
        f"backy-{first.id}",
        f"backy-{second.id}",
    ]
    assert "has the snapshot backy-ofbacky2 of unknown owner" in caplog.text
    assert "has the snapshot backy-brokenclaim of unknown owner" in caplog.text
    assert f"{first.id} of unknown owner" not in caplog.text
    assert "monday" not in caplog.text


def test_the_snapshot_that_backy_2_made_for_an_upgraded_revision_is_taken_over(
    disks, repositories, backup, stored, caplog: pytest.LogCaptureFixture
) -> None:
    disk = disks(6 * CHUNK_SIZE)
    disk.write(0, noise(2 * CHUNK_SIZE))
    repository = repositories(disk)
    first = backup(repository)
    with disk.opened() as image:
        image.metadata_remove(f"backy-{first.id}")  # which is all that backy 2 did otherwise
    disk.write(3 * CHUNK_SIZE, noise(MIB))

    second = backup(repository)

    assert second.statistics.bytes_read == CHUNK_SIZE
    assert stored(repository, second) == disk.exported(second)
    assert disk.snapshots() == list(disk.metadata()) == [f"backy-{second.id}"]
    assert "unknown owner" not in caplog.text


def test_what_an_interrupted_backup_left_goes_at_the_next_one(disks, repositories, backup) -> None:
    disk = disks(2 * CHUNK_SIZE)
    disk.write(0, noise(MIB))
    repository = repositories(disk)
    first = backup(repository)
    claim = disk.metadata()[f"backy-{first.id}"]
    with disk.opened() as image:
        image.metadata_set("backy-leftover", claim)
        image.create_snap("backy-leftover")
        image.metadata_set("backy-notevenmade", claim)
    revision = backup(repository)

    assert disk.snapshots() == list(disk.metadata()) == [f"backy-{revision.id}"]


def test_a_backup_that_fails_leaves_the_snapshots_as_they_were(disks, repositories, backup) -> None:
    disk = disks(2 * CHUNK_SIZE)
    disk.write(0, noise(MIB))
    repository = repositories(disk)
    first = backup(repository)
    before = disk.snapshots(), disk.metadata()

    def fail() -> None:
        with repository.source().snapshot("failing", first.id):
            assert len(disk.snapshots()) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (disk.snapshots(), disk.metadata()) == before


def test_what_is_kept_goes_with_the_revision_and_with_the_job(disks, repositories, backup, backy) -> None:
    disk = disks(2 * CHUNK_SIZE)
    disk.write(0, noise(MIB))
    repository = repositories(disk)
    first, second = backup(repository), backup(repository)
    assert backy("-b", repository.directory, "forget", "-r", first.id).code == 0
    assert disk.snapshots() == [f"backy-{second.id}"]
    assert backy("-b", repository.directory, "release").out == "Released\n"
    assert (disk.snapshots(), disk.metadata()) == ([], {})
    assert backup(repository).statistics.bytes_read == CHUNK_SIZE


# the virtual machine ------------------------------------------------------------------------------------------------


def test_a_running_machine_keeps_the_lock_of_its_image(disks, repositories, backup) -> None:
    disk = disks(2 * CHUNK_SIZE)
    with disk.cluster.connected() as connection, connection.open_ioctx(disk.pool) as ioctx:
        import rbd

        with rbd.Image(ioctx, disk.name) as machine:
            machine.write(noise(MIB), 0)
            owners = list(machine.lock_get_owners())
            assert machine.is_exclusive_lock_owner()
            for _ in range(2):
                revision = backup(repositories(disk))
                assert f"backy-{revision.id}" in [snapshot["name"] for snapshot in machine.list_snaps()]
                machine.write(b"goes on", 0)
            assert machine.is_exclusive_lock_owner()
            assert list(machine.lock_get_owners()) == owners


def test_a_snapshot_that_is_removed_while_it_is_read_is_an_error(disks, repositories) -> None:
    disk = disks(8 * CHUNK_SIZE)
    disk.write(0, noise(8 * CHUNK_SIZE))
    source = repositories(disk).source()

    def read() -> None:
        with source.snapshot("gone", None) as snapshot:
            list(snapshot.extents())
            snapshot.pread(0, CHUNK_SIZE)
            with disk.opened() as image:
                image.remove_snap("backy-gone")
            for index in range(1, 8):
                snapshot.pread(index * CHUNK_SIZE, CHUNK_SIZE)

    with pytest.raises(SourceError, match="the snapshot backy-gone that is being read: it does not exist"):
        read()
    assert (disk.snapshots(), disk.metadata()) == ([], {})


def test_what_is_read_from_a_pool_counts_for_its_limit(
    disks, repositories, backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disks(4 * CHUNK_SIZE)
    disk.write(0, noise(CHUNK_SIZE))
    repository = repositories(disk, verifier="full")
    taken: dict[str, int] = {}
    monkeypatch.setattr(
        Limit, "take", lambda self, count: taken.update({self.path.name: taken.get(self.path.name, 0) + count})
    )
    pool = repository.config.source["pool"]
    repository.config.limits.update({f"ceph-pool/{pool}": Size(2**20), "ceph-pool/another": Size(1)})
    backup(repository)
    # once to be stored, and once to be verified
    assert taken.keys() == {f".rate-ceph-pool%2F{pool}"}
    assert taken.popitem()[1] >= 2 * CHUNK_SIZE
