from __future__ import annotations

import itertools
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backy_sources_file import WriteWatch

SIZE = 2**20


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture(params=["ext4", "btrfs", "xfs"])
def image(request: pytest.FixtureRequest, mount: Callable[..., Path]) -> Path:
    """An image file on a real file system."""
    path = mount(request.param, 300 * 2**20) / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def device(loop_device: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A real block device."""
    path = tmp_path / "device"
    path.write_bytes(os.urandom(SIZE))
    return loop_device(path)


def overwrite(path: Path, flags: int = 0) -> None:
    """Write what is there already: a write is a write, whatever it changes."""
    descriptor = os.open(path, os.O_RDWR | flags)
    page = mmap.mmap(-1, 4096)
    try:
        os.preadv(descriptor, [page], SIZE // 2)
        os.pwrite(descriptor, page, SIZE // 2)
    finally:
        os.close(descriptor)


def punch(path: Path) -> None:
    subprocess.run(["fallocate", "--punch-hole", "--offset", "4096", "--length", "4096", path], check=True)


def grow(path: Path) -> None:
    os.truncate(path, SIZE + 1)


def set_back(path: Path) -> None:
    """Write, and pretend that nobody did."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


WRITERS = [overwrite, lambda path: overwrite(path, os.O_DIRECT), punch, grow, set_back]


def test_a_file_that_is_written_to_is_of_no_one_instant(image: Path) -> None:
    for write in WRITERS:
        with opened(image) as descriptor:
            watch = WriteWatch(descriptor)
            assert watch.consistency == "crash"
            write(image)
            assert watch.consistency == "none", write
            # for good: who looks again learns the same
            assert watch.consistency == "none"


def test_a_write_in_the_same_tick_of_the_clock_is_noticed(image: Path) -> None:
    with opened(image) as descriptor, image.open("r+b", buffering=0) as writer:
        for _ in range(5):
            writer.write(b"a")
            watch = WriteWatch(descriptor)
            assert watch.consistency == "crash"
            writer.write(b"b")
            assert watch.consistency == "none"


def test_a_write_through_memory_is_noticed_even_where_one_was_before(image: Path) -> None:
    with opened(image) as descriptor, image.open("r+b") as writer, mmap.mmap(writer.fileno(), SIZE) as mapped:
        mapped[0] = 1
        watch = WriteWatch(descriptor)
        assert watch.consistency == "crash"
        mapped[0] = 2
        assert watch.consistency == "none"


def test_reading_is_no_writing(image: Path, device: Path) -> None:
    for path in (image, device):
        with opened(path) as descriptor:
            watch = WriteWatch(descriptor)
            path.read_bytes()
            os.pread(descriptor, 4096, 0)
            assert watch.consistency == "crash"


@pytest.mark.parametrize("flags", [0, os.O_DIRECT])
def test_a_device_that_is_written_to_is_of_no_one_instant(device: Path, flags: int) -> None:
    with opened(device) as descriptor:
        watch = WriteWatch(descriptor)
        os.pread(descriptor, SIZE, 0)
        assert watch.consistency == "crash"
        overwrite(device, flags)
        assert watch.consistency == "none"


def test_what_was_written_before_does_not_count(device: Path) -> None:
    with device.open("r+b", buffering=0) as writer, opened(device) as descriptor:
        # in memory only, so that the kernel would count it later
        writer.write(os.urandom(SIZE))
        watch = WriteWatch(descriptor)
        os.pread(descriptor, SIZE, 0)
        assert watch.consistency == "crash"


def test_zeroes_and_discards_are_writes(device: Path) -> None:
    for command in (["blkdiscard"], ["blkdiscard", "--zeroout"]):
        with opened(device) as descriptor:
            watch = WriteWatch(descriptor)
            os.pread(descriptor, SIZE, 0)
            subprocess.run([*command, "--force", device], check=True)
            assert watch.consistency == "none"


def test_a_partition_has_counters_of_its_own(loop_device: Callable[[Path], Path], tmp_path: Path) -> None:
    path = tmp_path / "disk"
    os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 32 * 2**20)
    script = "label: dos\nsize=8MiB, type=83\nsize=8MiB, type=83\n"
    subprocess.run(["sfdisk", "-q", path], input=script, text=True, check=True)
    disk = loop_device(path)
    subprocess.run(["partx", "--add", disk], check=True)
    first, second = (Path(f"{disk}p{number}") for number in (1, 2))
    try:
        with opened(first) as descriptor:
            watch = WriteWatch(descriptor)
            os.pread(descriptor, SIZE, 0)
            overwrite(second)
            assert watch.consistency == "crash"
            overwrite(first)
            assert watch.consistency == "none"
    finally:
        subprocess.run(["partx", "--delete", disk], check=True)


@pytest.mark.parametrize(("kind", "size"), [("ext4", 32 * 2**20), ("xfs", 300 * 2**20), ("btrfs", 128 * 2**20)])
def test_a_mounted_device_is_read_as_it_is_and_its_writers_are_seen(mount, kind: str, size: int) -> None:
    root = mount(kind, size)
    found = subprocess.run(["findmnt", "-no", "SOURCE", root], check=True, capture_output=True, text=True)
    names = (f"new-{number}" for number in itertools.count())
    with opened(Path(found.stdout.strip())) as descriptor:
        # all of it is in memory now
        before = os.pread(descriptor, size, 0)
        (root / next(names)).write_bytes(os.urandom(SIZE))
        subprocess.run(["sync", "--file-system", root], check=True)
        watch = WriteWatch(descriptor)
        assert os.pread(descriptor, size, 0) != before
        assert watch.consistency == "crash"
        # the disk knows nothing of this for seconds, but who reads the device of ext4 sees it at once
        (root / next(names)).mkdir()
        if kind == "btrfs":
            assert watch.consistency == "crash"
            subprocess.run(["sync", "--file-system", root], check=True)
        assert watch.consistency == "none"


def says(device: Path, block_devices: Path) -> str:
    """Return what is said of a device that was read and not written to."""
    with opened(device) as descriptor:
        watch = WriteWatch(descriptor, block_devices)
        os.pread(descriptor, SIZE, 0)
        return watch.consistency


def test_where_nobody_counts_nobody_can_tell(device: Path, tmp_path: Path) -> None:
    real = Path("/sys/dev/block")
    number = f"{os.major(device.stat().st_rdev)}:{os.minor(device.stat().st_rdev)}"
    assert says(device, real) == "crash"
    assert says(device, tmp_path) == "unknown"

    # counters that stand still, and a device of which another machine may have the same image open
    for folder, name in (("still", "sda"), ("far", "nbd0")):
        (tmp_path / folder / name).mkdir(parents=True)
        (tmp_path / folder / number).symlink_to(name)
    for file in ("stat", "inflight"):
        (tmp_path / "still" / "sda" / file).write_text((real / number / file).read_text())
        (tmp_path / "far" / "nbd0" / file).symlink_to(real / number / file)
    assert says(device, tmp_path / "still") == "unknown"
    assert says(device, tmp_path / "far") == "unknown"
