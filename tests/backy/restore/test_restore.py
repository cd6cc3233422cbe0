from __future__ import annotations

import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Job, RevisionInfo
from backy.backup.backup import Backup
from backy.errors import (
    BackyError,
    ChunkDamageError,
    ConfigError,
    DamageError,
    RepositoryBusyError,
    RevisionNotFoundError,
    TargetError,
)
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Wrong
from backy.restore.restore import Restore, restore, stream
from backy.restore.target import open_target
from backy.system.locking import PURGE_LOCK, exclusive

OLD = b"\xaa"
"""What a target is full of before."""


def opened(path: Path, size: int, repository: Repository, *, force: bool = False):
    """Open a target that needs no options."""
    return open_target(str(path), size, repository, {}, force=force)


def silent(_length: int) -> None:
    """Show no progress."""


@pytest.fixture
def revision(repository: Repository, image: Path, clock):
    """A revision of an image that has zeroes of every kind: holes, pages and runs of pages inside of chunks."""
    with image.open("r+b") as stream:
        stream.seek(8192)
        stream.write(bytes(3 * 4096))
        stream.seek(CHUNK_SIZE - 4096)
        stream.write(bytes(4096))
        stream.seek(4 * CHUNK_SIZE + 1)
        stream.write(bytes(500))
    return Backup(repository, ("daily",), clock=clock).run()


@pytest.fixture
def restored(repository: Repository, revision):
    """Restore the revision as `restored(target)` and return what progress was told."""

    def run(path: Path, *, force: bool = False) -> int:
        told: list[int] = []
        with repository.image(revision) as stored, opened(path, stored.size, repository, force=force) as target:
            restore(stored, target, told.append)
        return sum(told)

    return run


def damage(repository: Repository, revision, index: int) -> str:
    """Spoil one stored chunk and return its id."""
    identity = repository.records.read_map(revision)[index].hex()
    path = next((repository.directory / "chunks").glob(f"??/{identity}.*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o640)
    path.write_bytes(content)
    return identity[:12]


def test_a_new_file_is_the_image_and_as_sparse(restored, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "new.img"

    assert restored(target) == image.stat().st_size
    assert target.read_bytes() == image.read_bytes()
    assert target.stat().st_blocks <= image.stat().st_blocks
    assert target.stat().st_mode & 0o777 == 0o600


def test_nothing_remains_of_a_larger_file(restored, image: Path, tmp_path: Path) -> None:
    target = tmp_path / "old.img"
    target.write_bytes(OLD * (image.stat().st_size + 5000))
    restored(target, force=True)

    assert target.read_bytes() == image.read_bytes()


def test_a_device_is_zeroed_where_the_image_has_holes_and_untouched_behind_it(
    restored, image: Path, tmp_path: Path, loop_device
) -> None:
    size = image.stat().st_size
    disk = tmp_path / "disk"
    disk.write_bytes(OLD * (6 * CHUNK_SIZE))
    device = loop_device(disk)
    restored(device)

    assert device.read_bytes() == image.read_bytes() + OLD * (6 * CHUNK_SIZE - size)


def test_less_than_a_page_of_a_device_can_be_zeroed(repository: Repository, tmp_path: Path, loop_device) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(OLD * CHUNK_SIZE)
    device = loop_device(disk)
    with opened(device, 1000, repository) as target:
        target.zero(0, 1000)

    assert device.read_bytes() == bytes(1000) + OLD * (CHUNK_SIZE - 1000)


def test_a_device_that_is_too_small_is_left_alone(restored, tmp_path: Path, loop_device) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(OLD * CHUNK_SIZE)
    device = loop_device(disk)

    with pytest.raises(TargetError, match=f"{device} has {CHUNK_SIZE} bytes, the image needs"):
        restored(device)
    assert device.read_bytes() == OLD * CHUNK_SIZE


def test_a_mounted_device_is_left_alone(restored, tmp_path: Path, loop_device) -> None:
    disk, folder = tmp_path / "disk", tmp_path / "mounted"
    with disk.open("wb") as file:
        file.truncate(32 * 2**20)
    folder.mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    device = loop_device(disk)
    subprocess.run(["mount", device, folder], check=True)
    try:
        (folder / "precious").write_text("data")
        with pytest.raises(TargetError, match=f"{device}: .*busy; is it mounted"):
            restored(device)
        assert (folder / "precious").read_text() == "data"
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_folder_is_refused(restored, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="neither a file nor a block device"):
        restored(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_the_repository_is_no_target(restored, repository: Repository, tmp_path: Path, inside: bool) -> None:
    target = repository.directory / "config" if inside else tmp_path / "link"
    if not inside:
        target.symlink_to(repository.directory / "config")
    before = target.read_bytes()

    with pytest.raises(TargetError, match="lies inside of the repository"):
        restored(target)
    assert target.read_bytes() == before


def test_a_damaged_chunk_is_named_and_the_target_called_incomplete(
    restored, repository: Repository, revision, tmp_path: Path
) -> None:
    identity = damage(repository, revision, 0)

    with pytest.raises(TargetError, match=rf"chunk {identity} at byte [0-9]+: .*; {tmp_path}/out is incomplete"):
        restored(tmp_path / "out")


def test_a_target_that_can_not_take_it_all_is_called_incomplete(
    repository: Repository, revision, tmp_path: Path
) -> None:
    with (
        repository.image(revision) as stored,
        pytest.raises(TargetError, match="out is incomplete: File too large"),
        opened(tmp_path / "out", stored.size, repository) as target,
    ):
        target.pwrite(b"x", 2**63 - 2)


def test_an_interrupted_restore_is_called_incomplete(repository: Repository, tmp_path: Path, caplog) -> None:
    logging.getLogger("backy").propagate = True
    with (
        pytest.raises(KeyboardInterrupt),
        opened(tmp_path / "out", 5, repository),
    ):
        raise KeyboardInterrupt

    assert f"{tmp_path}/out is incomplete" in caplog.text


def test_a_pipe_gets_the_image_from_the_first_byte_to_the_last(repository: Repository, revision, image: Path) -> None:
    reader, writer = os.pipe()
    got = bytearray()

    def read() -> None:
        while piece := os.read(reader, 2**20):
            got.extend(piece)

    consumer = threading.Thread(target=read)
    consumer.start()
    with repository.image(revision) as stored:
        stream(stored, writer, silent)
    os.close(writer)
    consumer.join(60)
    os.close(reader)

    assert bytes(got) == image.read_bytes()


def test_a_stream_ends_before_a_damaged_chunk(repository: Repository, revision, image: Path, tmp_path: Path) -> None:
    identity = damage(repository, revision, 4)

    with (
        (tmp_path / "out").open("wb") as out,
        repository.image(revision) as stored,
        pytest.raises(ChunkDamageError, match=identity),
    ):
        stream(stored, out.fileno(), silent)
    assert (tmp_path / "out").read_bytes() == image.read_bytes()[: 4 * CHUNK_SIZE]


class Whole:
    """Whole restores of the newest revision to a file, and what was told of them."""

    def __init__(self, repository: Repository, target: Path) -> None:
        self.repository = repository
        self.target = target
        self.told: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str]] = []
        self.events = Events()
        self.events.tell = self.tell

    def tell(
        self, hook: str, *, job: Job, revision: RevisionInfo | None, target: str, error: str | None = None
    ) -> None:
        assert job == self.repository.job
        assert hook == ("backy_restore_failed" if error else "backy_restore_finished")
        (self.failures if error else self.told).append((revision.id if revision else "", error or target))

    def run(self, **arguments: object) -> Revision:
        wanted = {"specification": "0", "target": str(self.target), "events": self.events} | arguments
        return Restore(self.repository, **wanted).run()


@pytest.fixture
def whole(repository: Repository, revision, tmp_path: Path) -> Whole:
    return Whole(repository, tmp_path / "out")


def test_a_restore_is_told_and_returns_the_revision(whole: Whole, revision, image: Path) -> None:
    assert whole.run(specification="last") == revision
    assert whole.target.read_bytes() == image.read_bytes()
    assert whole.told == [(revision.id, str(whole.target))]


def test_a_wrong_revision_is_restored_by_its_id_only(whole: Whole, revision, image: Path, caplog) -> None:
    whole.repository.records.write_state(revision.changed(wrong=Wrong((0,), revision.timestamp)))
    for specification in ("last", "0", *revision.tags):
        with pytest.raises(DamageError, match=f"{revision.id} is wrong in 1 chunk"):
            whole.run(specification=specification)
    assert not whole.target.exists()
    assert len(whole.failures) == 2 + len(revision.tags)

    whole.run(specification=revision.id)
    assert whole.target.read_bytes() == image.read_bytes()
    assert f"{revision.id} is wrong in 1 chunk: the source had other content" in caplog.text


def test_a_restore_to_a_descriptor_is_told_as_a_dash(whole: Whole, revision, image: Path) -> None:
    with whole.target.open("wb") as out:
        whole.run(target="-", descriptor=out.fileno())

    assert whole.target.read_bytes() == image.read_bytes()
    assert whole.told == [(revision.id, "-")]


def test_a_restore_that_is_resumed_reads_only_what_is_missing(whole: Whole, revision, image: Path) -> None:
    whole.target.write_bytes(image.read_bytes()[: 2 * CHUNK_SIZE])
    damage(whole.repository, revision, 0)
    whole.run(resume=True)

    assert whole.target.read_bytes() == image.read_bytes()
    assert whole.told == [(revision.id, str(whole.target))]


def test_a_restore_that_damage_ends_is_not_told_as_finished(whole: Whole, revision) -> None:
    damage(whole.repository, revision, 0)

    with pytest.raises(TargetError, match="out is incomplete") as failed:
        whole.run()
    assert whole.told == []
    assert whole.failures == [(revision.id, str(failed.value))]


def test_what_is_salvaged_is_restored_but_not_told_as_finished(
    whole: Whole, revision, image: Path, tmp_path: Path
) -> None:
    damage(whole.repository, revision, 0)

    with pytest.raises(DamageError, match="1 of 5 chunks could not be read, zeroes are in their place"):
        whole.run(salvage=tmp_path / "list")
    assert whole.target.read_bytes() == bytes(CHUNK_SIZE) + image.read_bytes()[CHUNK_SIZE:]
    assert "0x00000000  0x00400000  -" in (tmp_path / "list").read_text()
    assert whole.told == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"specification": "1"}, RevisionNotFoundError, "no revision 1"),
        ({"target": "-", "options": {"a": "b"}}, ConfigError, "'-' is standard output"),
        ({"target": "-", "resume": True}, TargetError, "'-' can not be read back"),
        ({"options": {"a": "b"}}, ConfigError, "options are for targets like TYPE:ARGUMENT"),
    ],
)
def test_what_can_not_be_restored_is_told_as_a_failure(
    whole: Whole, arguments: dict[str, object], error: type[BackyError], text: str
) -> None:
    with pytest.raises(error, match=text):
        whole.run(**arguments)
    assert whole.told == []
    ((_, told),) = whole.failures
    assert text in told
    assert not whole.target.exists()


def test_nobody_purges_what_is_being_restored(whole: Whole, revision) -> None:
    begun: list[tuple[str, int]] = []

    def steps(name: str, total: int):
        with pytest.raises(RepositoryBusyError), exclusive(whole.repository.directory, PURGE_LOCK):
            pass
        begun.append((name, total))
        return silent

    whole.run(steps=steps)
    assert begun == [("restore", revision.size)]


def test_event_plugins_are_loaded_once_the_image_is_there(
    whole: Whole, revision, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is broken must not keep anybody from getting an image back."""
    restored: list[bool] = []

    def installed(_sections: object) -> Events:
        restored.append(whole.target.read_bytes() == image.read_bytes())
        return whole.events

    monkeypatch.setattr(Events, "installed", installed)
    whole.run(events=None)

    assert restored == [True]
    assert whole.told == [(revision.id, str(whole.target))]
