"""What a backup stored that was killed or failed: the next one goes on with it, and it never fills the disk."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from backy.answers.space import occupied
from backy.api import CHUNK_SIZE, BackyError, Consistency, SourceError
from backy.backup.backup import Backup
from backy.conversion.convert import Conversion
from backy.pages import pages_with_data
from backy.repository.config import VerifierSections
from backy.repository.repository import Repository
from backy.repository.revision import utc_now
from backy.retention.purge import KEPT, leftovers, purge
from backy.testing.memory import MemoryImage, MemoryRepository
from backy_storages_chunked.files import ChunkFiles

CHUNKS = 8


@pytest.fixture(params=["chunked", "cow"])
def vm(request: pytest.FixtureRequest, mount, tmp_path: Path) -> MemoryRepository:
    folder = tmp_path if request.param == "chunked" else mount("xfs")
    made = MemoryRepository.make(folder / "vm", {"type": request.param})
    made.memory.content = random.Random(1).randbytes(CHUNKS * CHUNK_SIZE)
    return made


class Ending(MemoryImage):
    """An image that can be read up to a chunk, where something happens."""

    def __init__(self, image: MemoryImage, chunk: int, happens: Callable[[], object]) -> None:
        super().__init__(image.content, image.hint)
        self._end, self._happens = chunk * CHUNK_SIZE, happens

    def pread(self, offset: int, length: int) -> bytes:
        if offset >= self._end:
            self._happens()
        return super().pread(offset, length)


class Noting(MemoryImage):
    """An image that notes which chunks are read."""

    def __init__(self, image: MemoryImage, reads: list[int], consistency: Consistency = "crash") -> None:
        super().__init__(image.content, image.hint)
        self._reads = reads
        self.consistency = consistency

    def pread(self, offset: int, length: int) -> bytes:
        self._reads.append(offset // CHUNK_SIZE)
        return super().pread(offset, length)


def gone() -> None:
    raise SourceError("the source went away")


def fail(repository: MemoryRepository, chunk: int, happens: Callable[[], object] = gone) -> None:
    repository.memory.wrap = lambda image: Ending(image, chunk, happens)
    try:
        Backup(repository, ("daily",)).run()
    except (BackyError, OSError):
        return
    finally:
        repository.memory.wrap = lambda image: image


def kill(repository: MemoryRepository, chunk: int) -> None:
    """Have a process back up until it is killed with all it knows."""
    child = os.fork()
    if not child:
        fail(repository, chunk, lambda: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])


def left(repository: Repository) -> int:
    return sum(found.bytes for _, found in leftovers(repository))


def content(repository: Repository) -> bytes:
    with repository.image(repository.records.select("last")) as image:
        return image.pread(0, image.size)


def written(repository: MemoryRepository, monkeypatch: pytest.MonkeyPatch) -> int:
    """Make a backup, and count what it writes of the image."""
    sizes = []
    real = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        sizes.append(len(data) if len(data) >= 4096 else 0)
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        Backup(repository, ("daily",)).run()
    return sum(sizes)


@pytest.mark.parametrize("end", [fail, kill])
def test_the_next_backup_stores_only_what_is_missing(vm: MemoryRepository, monkeypatch, end: Callable) -> None:
    end(vm, CHUNKS - 1)
    # some were on their way when the process was killed
    kept = left(vm)
    assert kept >= CHUNKS // 2 * CHUNK_SIZE

    assert written(vm, monkeypatch) <= CHUNKS * CHUNK_SIZE - kept + CHUNK_SIZE
    assert content(vm) == vm.memory.content
    assert left(vm) == 0
    # it is as much as without the failure
    assert vm.records.history()[0].statistics.bytes_stored >= CHUNKS * CHUNK_SIZE


@pytest.mark.parametrize(("torn", "consistency"), [(0, "crash"), (1, "crash"), (1, "guest"), (1, "unknown")])
def test_what_was_compared_as_it_was_taken_over_is_not_compared_again(
    tmp_path: Path, torn: int, consistency: Consistency
) -> None:
    """Unless only a second read can show that the source was written to."""
    vm = MemoryRepository.make(tmp_path / "vm", {"type": "chunked"})
    vm.memory.content = random.Random(1).randbytes(CHUNKS * CHUNK_SIZE)
    fail(vm, CHUNKS - 1)
    for path in [*vm.directory.glob("chunks/??/*")][:torn]:
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    kept = len([*vm.directory.glob("chunks/??/*")]) - torn
    reads: list[int] = []
    vm.memory.wrap = lambda image: Noting(image, reads, consistency)
    made = Backup(vm, ("daily",)).run()
    # all others are read to store them, and once more to compare them
    once = 0 if consistency == "unknown" else kept
    assert (set(reads), len(reads)) == (set(range(CHUNKS)), 2 * CHUNKS - once)
    assert [(one.verifier, one.checked) for one in made.verifications] == [("full", CHUNKS)]
    assert content(vm) == vm.memory.content


def test_a_write_to_what_is_taken_over_fails_a_backup_of_an_unknown_source(tmp_path: Path) -> None:
    vm = MemoryRepository.make(tmp_path / "vm", {"type": "chunked"})
    vm.memory.content = random.Random(1).randbytes(CHUNKS * CHUNK_SIZE)
    fail(vm, CHUNKS - 1)

    class Torn(MemoryImage):
        """A guest writes to the first and to the last chunk when the first one was read."""

        def pread(self, offset: int, length: int) -> bytes:
            before = super().pread(offset, length)
            if not offset:
                self.content = b"NEW!" + self.content[4:]
            return before

    vm.memory.wrap = lambda image: Torn(image.content[:-4] + b"NEW!")
    with pytest.raises(BackyError):
        Backup(vm, ("daily",)).run()
    assert vm.records.history() == []


@pytest.mark.parametrize("end", [fail, kill])
def test_a_job_that_keeps_failing_keeps_one_image(vm: MemoryRepository, end: Callable) -> None:
    chance = random.Random(2)
    for _ in range(4):
        vm.memory.content = chance.randbytes(CHUNKS * CHUNK_SIZE)
        end(vm, CHUNKS - 1)
    fail(vm, 0)  # one that was killed can remove nothing itself

    assert occupied(vm.directory).total < (CHUNKS + 1) * CHUNK_SIZE
    vm.memory.content = vm.memory.content[: 2 * CHUNK_SIZE]
    fail(vm, 0)
    purge(vm)
    assert occupied(vm.directory).total < 3 * CHUNK_SIZE


def test_what_is_left_of_several_backups_comes_together(vm: MemoryRepository, monkeypatch) -> None:
    fail(vm, CHUNKS - 1)
    fail(vm, 1)
    kill(vm, 2)

    assert written(vm, monkeypatch) <= 4 * CHUNK_SIZE


def spoil(vm: MemoryRepository, chance: random.Random) -> None:
    """Do to what is left what a power loss may do."""
    paths = [path for folder in ("chunks", "cow") for path in (vm.directory / folder).rglob("*") if path.is_file()]
    for path in paths:
        if path.name == "store" or chance.random() < 0.3:
            continue
        data = bytearray(path.read_bytes())
        place = chance.randrange(len(data) // 4096 + 1) * 4096
        kind = chance.choice(["cut", "zeroes", "other", "empty"])
        mode = path.stat().st_mode
        path.chmod(0o600)
        if kind == "cut":
            del data[place:]
        elif kind == "zeroes":
            data[place : place + 8192] = bytes(len(data[place : place + 8192]))
        elif kind == "other":
            data[place : place + 4096] = chance.randbytes(len(data[place : place + 4096]))
        else:
            data.clear()
        path.write_bytes(data)
        path.chmod(mode)


@pytest.mark.parametrize("kind", ["chunked", "cow"])
def test_nothing_that_is_torn_gets_into_an_image(mount, rounds, kind: str) -> None:
    folder = mount("xfs")
    for seed in range(rounds(4, 100)):
        chance = random.Random(seed)
        vm = MemoryRepository.make(folder / str(seed), {"type": kind})
        # Nothing but the writer looks at what was left.
        vm.config.verifier = VerifierSections.from_plain("none")
        blocks = [bytes(CHUNK_SIZE), *(chance.randbytes(CHUNK_SIZE) for _ in range(3))]
        for _ in range(chance.randrange(1, 3)):
            vm.memory.content = b"".join(chance.choices(blocks, k=4)) + chance.randbytes(chance.choice([0, 5000]))
            fail(vm, chance.randrange(2, 4))
            spoil(vm, chance)
        vm.memory.content = b"".join(chance.choices(blocks, k=chance.randrange(1, 6)))

        Backup(vm, ("daily",)).run()
        assert content(vm) == vm.memory.content
        purge(vm)
        assert content(vm) == vm.memory.content
        assert left(vm) == 0
        shutil.rmtree(vm.directory)


@pytest.mark.parametrize("size", [5 * CHUNK_SIZE, 3 * CHUNK_SIZE + 5000, (CHUNKS + 1) * CHUNK_SIZE + 1])
def test_what_the_source_has_no_more_is_not_in_the_image(vm: MemoryRepository, size: int) -> None:
    vm.config.verifier = VerifierSections.from_plain("none")
    fail(vm, CHUNKS - 1)
    now = bytearray(vm.memory.content[:size].ljust(size, b"\0"))
    now[CHUNK_SIZE : 2 * CHUNK_SIZE] = bytes(CHUNK_SIZE)  # a whole chunk was discarded
    now[2 * CHUNK_SIZE + 4096 : 2 * CHUNK_SIZE + 3 * 4096] = bytes(2 * 4096)  # and some pages of another
    now[0:4] = b"page"
    vm.memory.content = bytes(now)
    Backup(vm, ("daily",)).run()

    assert content(vm) == vm.memory.content
    if (raw := vm.raw_path(vm.records.history()[0])) is not None:
        assert raw.stat().st_blocks * 512 <= len(pages_with_data(vm.memory.content)) * 4096


@pytest.mark.parametrize("kind", ["torn", "zeroes"])
def test_a_page_that_is_not_what_was_written_is_written_again(mount, kind: str) -> None:
    vm = MemoryRepository.make(mount("xfs") / "vm", {"type": "cow"})
    vm.config.verifier = VerifierSections.from_plain("none")
    vm.memory.content = random.Random(1).randbytes(CHUNKS * CHUNK_SIZE)
    fail(vm, CHUNKS - 1)
    with (vm.directory / "cow/unfinished").open("r+b") as stream:
        stream.seek(CHUNK_SIZE + 3 * 4096)
        stream.write(bytes(4096) if kind == "zeroes" else b"torn")
    Backup(vm, ("daily",)).run()

    assert content(vm) == vm.memory.content


def test_a_purge_keeps_what_is_left_for_a_week(vm: MemoryRepository, monkeypatch) -> None:
    fail(vm, CHUNKS - 1)
    before = left(vm)
    purge(vm, clock=lambda: utc_now() + KEPT - timedelta(hours=1))
    assert left(vm) == before > 0

    purge(vm, clock=lambda: utc_now() + KEPT + timedelta(hours=1))
    assert left(vm) == 0
    assert occupied(vm.directory).total < CHUNK_SIZE

    fail(vm, CHUNKS - 1)
    monkeypatch.setattr("backy.retention.purge.is_short", lambda _: True)
    purge(vm)
    assert occupied(vm.directory).total < CHUNK_SIZE


def test_what_goes_while_it_is_counted_is_not_left(vm: MemoryRepository, monkeypatch) -> None:
    fail(vm, CHUNKS - 1)
    find = ChunkFiles.find

    def find_last(files: ChunkFiles, chunk_id: bytes) -> object:
        found = find(files, chunk_id)
        shutil.rmtree(files.directory)
        return found

    monkeypatch.setattr(ChunkFiles, "find", find_last)
    assert (left(vm) == 0) == (vm.config.storage.type == "chunked")


def test_an_image_that_could_not_get_its_name_is_gone_on_with(vm: MemoryRepository, monkeypatch) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.stat().st_size > CHUNK_SIZE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        fail(vm, CHUNKS)
    if vm.config.storage.type == "cow":
        (image,) = (path for path in vm.directory.rglob("*") if path.is_file() and path.stat().st_size > CHUNK_SIZE)
        assert image.stat().st_mode & 0o200
    Backup(vm, ("daily",)).run()
    assert content(vm) == vm.memory.content


def test_a_backup_that_finds_no_space_leaves_nothing(vm: MemoryRepository) -> None:
    def full() -> None:
        raise OSError(28, os.strerror(28))

    fail(vm, CHUNKS - 1, full)

    assert left(vm) == 0
    assert occupied(vm.directory).total < CHUNK_SIZE


def test_what_is_left_of_a_later_backup_is_known_from_forgotten_revisions(vm: MemoryRepository) -> None:
    Backup(vm, ("daily",)).run()
    vm.memory.content = vm.memory.content[: 4 * CHUNK_SIZE] + random.Random(3).randbytes(4 * CHUNK_SIZE)
    fail(vm, CHUNKS - 1)
    first = vm.records.history()[0]
    vm.remove(first.id)
    purge(vm)

    assert occupied(vm.directory).total < 4 * CHUNK_SIZE
    Backup(vm, ("daily",)).run()
    assert content(vm) == vm.memory.content


def test_a_conversion_leaves_nothing_behind(mount) -> None:
    vm = MemoryRepository.make(mount("xfs") / "vm", {"type": "chunked"})
    vm.memory.content = random.Random(1).randbytes(2 * CHUNK_SIZE)
    fail(vm, 1)
    Backup(vm, ("daily",)).run()
    for name in ("cow", "chunked"):
        Conversion(vm, name).run()
        assert left(vm) == 0
    assert not list(vm.directory.rglob("unfinished"))


def test_status_tells_what_is_left(backy, vm: MemoryRepository) -> None:
    fail(vm, CHUNKS - 1)
    shown = backy("-b", vm.directory, "status").out

    assert "MiB of a backup that did not end; the next one goes on with it, until 20" in shown
    assert f'"bytes": {left(vm)},' in backy("-b", vm.directory, "status", "--json").out
