"""Incremental backups of images that all kinds of things are done to: every revision is what was frozen, bit by bit."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import random
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, Extent
from backy.backup.backup import Backup
from backy.extents import mapped
from backy.repository.config import JobConfig, SourceSection, StorageSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.repository.sealed import FORMAT
from backy_sources_file import OpenFile, fiemap

BLOCK = 4096
SIZE = 20 * 2**20
LARGEST = 24 * 2**20
FICLONERANGE = 0x4020940D
TEXT = b"".join(b"line %d of a file that compresses well\n" % number for number in range(3 * 2**15))

# what can be done to an image -----------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def clone_range(source: Path, start: int, length: int, target: Path, place: int) -> None:
    """Let a range of `target` share the blocks of a range of `source`."""
    with opened(source) as reading, opened(target) as writing:
        fcntl.ioctl(writing, FICLONERANGE, struct.pack("=qQQQ", reading, start, length, place))


def fallocate(path: Path, *arguments: object) -> None:
    subprocess.run(["fallocate", *map(str, arguments), path], check=True)


def anywhere(path: Path, chance: random.Random, longest: int) -> tuple[int, int]:
    """Return a range inside of the image that is at least a byte long."""
    size = path.stat().st_size
    offset = chance.randrange(size)
    return offset, min(chance.randint(1, longest), size - offset)


def whole_blocks(path: Path, chance: random.Random, longest: int) -> tuple[int, int]:
    """Return a range of up to `longest` whole blocks inside of the image."""
    count = path.stat().st_size // BLOCK
    first = chance.randrange(count)
    return first * BLOCK, min(chance.randint(1, longest), count - first) * BLOCK


def write(path: Path, offset: int, data: bytes) -> None:
    with opened(path) as descriptor:
        os.pwrite(descriptor, data, offset)


def write_pages(path: Path, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 20)):
        offset, length = whole_blocks(path, chance, 2)
        write(path, offset, chance.randbytes(length))


def write_bytes(path: Path, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 10)):
        offset, length = anywhere(path, chance, 10000)
        write(path, offset, chance.randbytes(length))


def write_much(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 3 * 2**20)
    write(path, offset, chance.randbytes(length))


def write_text(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 2**20)
    start = chance.randrange(2**20)
    write(path, offset, TEXT[start : start + length])


def write_zeroes(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 6 * 2**20)
    write(path, offset, bytes(length))


def write_directly(path: Path, chance: random.Random) -> None:
    offset, length = whole_blocks(path, chance, 16)
    with mmap.mmap(-1, length) as buffer, opened(path, os.O_DIRECT) as descriptor:
        buffer.write(chance.randbytes(length))
        os.pwritev(descriptor, [buffer], offset)


def write_to_memory(path: Path, chance: random.Random) -> None:
    with opened(path) as descriptor, mmap.mmap(descriptor, path.stat().st_size) as memory:
        for _ in range(chance.randint(1, 20)):
            offset, length = anywhere(path, chance, 5000)
            memory[offset : offset + length] = chance.randbytes(length)


def cut(path: Path, chance: random.Random) -> None:
    os.truncate(path, max(path.stat().st_size - chance.choice([1, BLOCK, 70000, 5 * 2**20]), SIZE // 2))


def grow(path: Path, chance: random.Random) -> None:
    os.truncate(path, min(path.stat().st_size + chance.choice([1, BLOCK, 70000, 5 * 2**20]), LARGEST))


def cut_and_grow(path: Path, chance: random.Random) -> None:
    size = path.stat().st_size
    os.truncate(path, size - chance.choice([100, 50000, 2**20]))
    os.truncate(path, size)


def append(path: Path, chance: random.Random) -> None:
    with path.open("ab") as stream:
        stream.write(chance.randbytes(min(chance.randint(1, 2**20), LARGEST - path.stat().st_size)))


def punch(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 5 * 2**20)
    fallocate(path, "--punch-hole", "--offset", offset, "--length", length)


def allocate(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 5 * 2**20)
    fallocate(path, "--offset", offset, "--length", length)


def allocate_beyond(path: Path, chance: random.Random) -> None:
    fallocate(path, "--keep-size", "--offset", path.stat().st_size, "--length", 2**20)


def zero(path: Path, chance: random.Random) -> None:
    offset, length = anywhere(path, chance, 2 * 2**20)
    fallocate(path, "--zero-range", "--keep-size", "--offset", offset, "--length", length)


def punch_and_allocate(path: Path, chance: random.Random) -> None:
    offset, length = whole_blocks(path, chance, 64)
    fallocate(path, "--punch-hole", "--offset", offset, "--length", length)
    fallocate(path, "--offset", offset, "--length", length)


def copy_within(path: Path, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 4)):
        start, length = whole_blocks(path, chance, 64)
        target, room = whole_blocks(path, chance, 64)
        if length := min(length, room, abs(start - target)):
            clone_range(path, start, length, path, target)


def copy_in(path: Path, chance: random.Random) -> None:
    """Let blocks of what the image was at first be in it, by what `cp --reflink` calls."""
    offset, length = whole_blocks(path, chance, 256)
    clone_range(path.with_name("former"), chance.randrange(256) * BLOCK, length, path, offset)


def exchange(path: Path, chance: random.Random) -> None:
    """Go back to what the image was at first."""
    if chance.random() < 0.2:
        subprocess.run(["cp", "--reflink=always", path.with_name("former"), path], check=True)


def sync(path: Path, chance: random.Random) -> None:
    with opened(path) as descriptor:
        os.fsync(descriptor)


OPERATIONS: list[Callable[[Path, random.Random], None]] = [
    *(write_pages, write_bytes, write_much, write_text, write_zeroes, write_directly, write_to_memory),
    *(cut, grow, cut_and_grow, append, punch, allocate, allocate_beyond, zero, punch_and_allocate),
    *(copy_within, copy_in, exchange, sync, sync),
]


def make(path: Path, chance: random.Random) -> None:
    """Write an image with data of all kinds in it; if there is a file already, it gives its attributes."""
    with path.open("wb") as stream:
        stream.write(chance.randbytes(6 * 2**20))
        stream.write(TEXT[: 3 * 2**20])
        stream.truncate(SIZE)
    fallocate(path, "--offset", 12 * 2**20, "--length", 3 * 2**20)
    write(path, 17 * 2**20, chance.randbytes(2**20 + 77))


# what is true of every backup -----------------------------------------------------------------------------------------


class Lab:
    """An image on a real file system and a repository elsewhere that keeps clones of it."""

    def __init__(self, image: Path, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
        source = {"type": "file", "filename": str(image), "freeze": "keep"}
        storage = {"type": "chunked", "durability": "none"}
        self.image = image
        self.repository = Repository.initialize(
            directory, JobConfig(format=FORMAT, source=SourceSection(source), storage=StorageSection(storage))
        )
        self.digests: dict[str, str] = {}
        self._caplog = caplog

    def back_up(self) -> Revision:
        """Make a revision, and make sure that it is what was frozen and that nothing went wrong on the way."""
        revision = Backup(self.repository, ("test",)).run()
        self.digests[revision.id] = digest(self.clone(revision))
        assert self.stored(revision) == self.digests[revision.id]
        # that an image shrank is no complaint about what the source tells
        assert [record for record in self._caplog.records if record.name != "backy.retention.tags"] == []
        return revision

    def clone(self, revision: Revision) -> Path:
        (path,) = self.image.parent.glob(".backy-*")
        assert path.name == f".backy-{self.repository.job.id}@{revision.id}"
        return path

    def stored(self, revision: Revision) -> str:
        found = hashlib.sha256()
        with self.repository.image(revision) as image:
            for index in range(len(image.chunks)):
                found.update(image.chunk(index))
        return found.hexdigest()

    def check_all(self) -> None:
        for revision in self.repository.records.history():
            assert self.stored(revision) == self.digests[revision.id]

    def read(self) -> int:
        """Return how many bytes of the image all backups but the first one read."""
        return sum(revision.statistics.bytes_read for revision in self.repository.records.history()[1:])


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


KINDS = ["btrfs", "btrfs zstd", "btrfs in place", "xfs"]


@pytest.fixture
def laboratory(mount: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[[str], Lab]:
    """Make an image `disk.img` in a file system of a kind; `in place` stands for one that is not copied on write."""

    def prepare(kind: str) -> Lab:
        folder = mount(kind.removesuffix(" in place"))
        (folder / "disk.img").touch()
        if kind.endswith(" in place"):
            subprocess.run(["chattr", "+C", folder], check=True)
            subprocess.run(["chattr", "+C", folder / "disk.img"], check=True)
        return Lab(folder / "disk.img", tmp_path / "vm", caplog)

    return prepare


@pytest.fixture(params=KINDS)
def used(laboratory: Callable[[str], Lab], request: pytest.FixtureRequest) -> tuple[Lab, random.Random]:
    """An image with data of all kinds in it, one revision of it, and chance that can be had again."""
    lab = laboratory(request.param)
    chance = random.Random(request.param)
    make(lab.image, chance)
    subprocess.run(["cp", "--reflink=always", lab.image, lab.image.with_name("former")], check=True)
    lab.back_up()
    return lab, chance


def test_each_thing_that_can_be_done_to_an_image_is_seen_alone(used) -> None:
    lab, chance = used
    for operation in OPERATIONS:
        operation(lab.image, chance)
        assert lab.digests[lab.back_up().id] == digest(lab.image), operation.__name__
    lab.check_all()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_single_pages_are_stored_without_what_they_differ_from(laboratory, monkeypatch, kind: str) -> None:
    lab: Lab = laboratory(kind)
    make(lab.image, random.Random(5))
    lab.back_up()
    # whatever is read to make a delta of it is hashed
    monkeypatch.delattr("backy_storages_chunked.writer.identify")
    for page in (3, 7, 1500):
        write(lab.image, page * 4096, random.Random(page).randbytes(4096))
    revision = lab.back_up()
    assert revision.statistics.bytes_written == 3 * 4096
    assert revision.statistics.bytes_stored < 4 * 4096


def test_the_changes_within_a_range_are_those_that_touch_it(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(8192))
    changes = [Extent(start, 10, data=True) for start in (0, 10, 30, 40)]
    with (tmp_path / "image").open("rb") as stream:
        image = OpenFile(tmp_path / "image", stream.fileno(), changes)
        assert [image.changes_within(*one) for one in ((0, 50), (9, 2), (20, 10), (35, 5))] == [
            changes,
            changes[:2],
            [],
            changes[2:3],
        ]
        assert list(OpenFile(tmp_path / "image", stream.fileno()).changes_within(0, 50)) == []


def test_a_change_that_the_file_system_hides_once_is_found_by_its_turn(laboratory, monkeypatch) -> None:
    lab: Lab = laboratory("btrfs")
    make(lab.image, random.Random(5))
    first = lab.back_up()
    told = fiemap.changes
    with monkeypatch.context() as patch:
        patch.setattr(fiemap, "changes", lambda *files: [one for one in told(*files) if one.end <= 3 * CHUNK_SIZE])
        write(lab.image, 3 * CHUNK_SIZE + 5, b"hidden")
        write(lab.image, 7, b"told")
        second = Backup(lab.repository, ("test",)).run()
    assert second.consistency == "crash"
    assert second.trust is Trust.TRUSTED
    # the third backup is the turn of the chunk
    third = Backup(lab.repository, ("test",)).run()
    assert lab.stored(third) == digest(lab.image) != lab.stored(second)
    found = [lab.repository.records.read(one.id) for one in (first, second, third)]
    assert [one.trust for one in found] == [Trust.TRUSTED, Trust.WRONG, Trust.TRUSTED]
    assert found[1].state.wrong.chunks == (3,)


def test_whatever_is_done_to_an_image_each_revision_is_what_was_frozen(used, rounds) -> None:
    lab, chance = used
    count = rounds(3, 50)
    for number in range(count):
        for operation in chance.choices(OPERATIONS, k=chance.randint(2, 6)):
            operation(lab.image, chance)
        revision = lab.back_up()
        assert lab.digests[revision.id] == digest(lab.image), number
        assert revision.verification.verifier == "changed"
    lab.check_all()
    assert lab.read() < count * SIZE


@pytest.mark.parametrize("kind", ["btrfs", "btrfs in place", "xfs"])
def test_only_what_changed_is_read_and_verified(laboratory, kind) -> None:
    lab = laboratory(kind)
    lab.image.write_bytes(random.Random(1).randbytes(SIZE))
    lab.back_up()
    write(lab.image, CHUNK_SIZE + 5, b"changed")
    revision = lab.back_up()
    assert revision.statistics.bytes_read == CHUNK_SIZE
    assert str(revision.verification) == "verified 2 of 5 chunks"
    assert lab.back_up().statistics.bytes_read == 0


def test_equal_maps_of_compressed_extents_do_not_deceive(laboratory) -> None:
    lab = laboratory("btrfs zstd")
    half = 2**16
    donor = lab.image.with_name("donor")
    donor.write_bytes(TEXT[: 2 * half])
    sync(donor, random.Random())
    os.truncate(lab.image, SIZE)
    clone_range(donor, 0, half, lab.image, 2**20)
    first = lab.back_up()
    clone_range(donor, half, half, lab.image, 2**20)
    with opened(lab.clone(first)) as old, opened(lab.image) as new:
        assert list(mapped(old)) == list(mapped(new))
    second = lab.back_up()

    assert lab.digests[first.id] != lab.digests[second.id]
    with lab.repository.image(second) as image:
        assert image.pread(2**20, half) == TEXT[half : 2 * half]


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_of_a_guest_are_those_of_the_instant_of_the_freeze(laboratory, kind, rounds, tmp_path) -> None:
    lab = laboratory(kind)
    chance = random.Random(kind)
    os.truncate(lab.image, 3 * SIZE)
    subprocess.run(["mkfs.ext4", "-q", lab.image], check=True)
    guest = tmp_path / "guest"
    guest.mkdir()
    for number in range(rounds(3, 50)):
        subprocess.run(["mount", "-o", "loop,discard", lab.image, guest], check=True)
        try:
            churn(guest, chance)
            (guest / "marker").write_text(str(number))
            with opened(guest / "marker") as descriptor:
                os.fsync(descriptor)
            churn(guest, chance)  # some of it is in memory only
            revision = lab.back_up()
        finally:
            subprocess.run(["umount", guest], check=True)
        with lab.repository.image(revision) as image:
            (tmp_path / "restored").write_bytes(image.pread(0, image.size))
        assert subprocess.run(["e2fsck", "-fp", tmp_path / "restored"], check=False, capture_output=True).returncode < 2
        shown = subprocess.run(["debugfs", "-R", "cat marker", tmp_path / "restored"], check=True, capture_output=True)
        assert shown.stdout == str(number).encode()
    lab.check_all()


def churn(guest: Path, chance: random.Random) -> None:
    """Write, append to, cut and remove files, as the programs of a guest do."""
    for _ in range(20):
        path = guest / f"file-{chance.randrange(30)}"
        action = chance.randrange(4)
        if action == 0:
            path.write_bytes(chance.randbytes(chance.randint(0, 300000)))
        elif action == 1:
            with path.open("ab") as stream:
                stream.write(TEXT[: chance.randint(0, 100000)])
        elif path.exists():
            path.unlink() if action == 2 else os.truncate(path, path.stat().st_size // 2)


WRITER = """
import os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
turn = 0
while True:
    turn += 1
    for page in range(int(sys.argv[2])):
        os.pwrite(descriptor, turn.to_bytes(8, "little"), page * int(sys.argv[3]))
    if turn == 3:
        print("running", flush=True)
"""
STEP = SIZE // 64


@contextmanager
def writer(image: Path) -> Iterator[None]:
    """Let a process count in 64 places of an image, again and again from the first to the last."""
    command = ["python3", "-c", WRITER, image, "64", str(STEP)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def counters(image: Path | bytes) -> list[int]:
    content = image.read_bytes() if isinstance(image, Path) else image
    return [int.from_bytes(content[place : place + 8], "little") for place in range(0, 64 * STEP, STEP)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_that_is_written_to_meanwhile_is_backed_up_as_of_one_instant(laboratory, kind, rounds) -> None:
    lab = laboratory(kind)
    lab.image.write_bytes(random.Random(1).randbytes(SIZE))
    before = 0
    with writer(lab.image):
        for _ in range(rounds(3, 50)):
            revision = lab.back_up()
            with lab.repository.image(revision) as image:
                found = counters(image.pread(0, image.size))
            # the instant was between two writes: some places have this turn already, the rest the one before
            assert found == sorted(found, reverse=True)
            assert found[0] - found[-1] <= 1
            assert before < found[0] < min(counters(lab.image))
            before = found[0]
    lab.check_all()


def test_an_image_that_fio_writes_to_meanwhile_is_backed_up_as_of_one_instant(laboratory) -> None:
    lab = laboratory("xfs")
    lab.image.write_bytes(random.Random(1).randbytes(SIZE))
    lab.back_up()
    with fio(lab.image):
        revisions = [lab.back_up() for _ in range(3)]
    assert len({lab.digests[revision.id] for revision in revisions}) == 3
    lab.check_all()


@contextmanager
def fio(image: Path) -> Iterator[None]:
    """Let fio write to pages of an image at random."""
    command = ["fio", "--name=guest", "--thread", f"--filename={image}", f"--size={SIZE}", "--rw=randwrite", "--bs=4k"]
    command += ["--ioengine=psync", "--time_based", "--runtime=600", "--fallocate=none", "--eta=never"]
    time_of_change = image.stat().st_mtime_ns
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while image.stat().st_mtime_ns == time_of_change:
                assert process.poll() is None
                time.sleep(0.01)
            yield
            assert process.poll() is None
        finally:
            process.kill()
