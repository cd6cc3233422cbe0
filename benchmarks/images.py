"""Makes deterministic images: an ext4 file system with the files of /usr, and changes of its days.

The same size, seed and state of /usr give the same image, except for the times of change in its inodes.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, count, groupby
from operator import itemgetter
from pathlib import Path

import zstandard

CHUNK = 4 * 2**20
PAGE = 4096
SMALLEST = 64 * 2**20
"""Bytes of the smallest image in which all steps find something to change."""
# With the random file and ext4's own data, this leaves 30 % of the image as holes.
_FILES = 0.58
"""Share of the image for files of /usr."""
_RANDOM = 0.08
"""Share of the image for a file of random bytes, which no tool can compress."""
_CONTENT = Path("/usr")
# Random ids would make every image a different one.
_UUID = "6261636b-7920-4265-8e63-686d61726b73"


@dataclass(frozen=True)
class Change:
    """The changes of a day."""

    changed: int
    """Bytes written to the image."""
    compressed: int
    """Bytes of the same pages after zstd at level 1 has compressed those of each 4 MiB together."""


def build(image: Path, size: int, seed: int = 1) -> None:
    """Make a file system image of `size` bytes unless it exists already."""
    if image.exists():
        return
    tree = image.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    inodes = _fill(tree, size, random.Random(seed))
    # Under another name first: an interrupted build must not look like an image.
    unfinished = image.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with unfinished.open("wb") as stream:
        stream.truncate(size)
    options = f"hash_seed={_UUID},lazy_itable_init=1,nodiscard"
    subprocess.run(
        [
            *("mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-N", str(inodes + 100)),
            *("-U", _UUID, "-E", options, "-d", str(tree), str(unfinished)),
        ],
        check=True,
        env={**os.environ, "E2FSPROGS_FAKE_TIME": "1750000000", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    shutil.rmtree(tree)
    unfinished.rename(image)


def _fill(tree: Path, size: int, choice: random.Random) -> int:
    """Fill `tree` with a random file, and with files of /usr in an arbitrary but fixed order; count the inodes."""
    (tree / "random").mkdir(parents=True)
    with (tree / "random" / "bytes").open("wb") as stream:
        for _ in range(int(size * _RANDOM) // 2**16):
            stream.write(choice.randbytes(2**16))
    paths = _paths(size // 32)
    choice.shuffle(paths)
    capacity = int(size * _FILES)
    for number in count(1):
        path = paths[(number - 1) % len(paths)]
        target = tree / f"{(number - 1) // len(paths)}" / path.relative_to("/")
        folders = sum(not parent.exists() for parent in target.parents)
        capacity -= (folders + -(-path.stat().st_size // PAGE)) * PAGE
        if capacity < 0:
            return number + len(list(tree.rglob("*/")))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A link costs no time and no space, but works only on the file system of /usr.
        try:
            target.hardlink_to(path)
        except OSError:
            shutil.copy2(path, target)
    raise AssertionError


def _paths(largest: int) -> list[Path]:
    """Return the readable regular files of /usr with up to `largest` bytes, sorted."""
    found = []
    for folder, _, names in os.walk(_CONTENT):
        paths = (Path(folder, name) for name in names)
        found += [path for path in paths if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)]
    return sorted(path for path in found if 0 < path.stat().st_size <= largest)


def copy(image: Path, target: Path) -> None:
    """Copy an image and keep its holes."""
    subprocess.run(["cp", "--sparse=always", str(image), str(target)], check=True)


def extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each range of data in a sparse file."""
    end = 0
    size = os.fstat(descriptor).st_size
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def change(image: Path, share: float, run: int, seed: int, *, noise: bool = False) -> Change:
    """Overwrite `share` of the image's pages, `run` pages at a time, in ranges with data.

    The new content comes from other ranges of the image; with `noise` it is random.
    """
    compressor = zstandard.ZstdCompressor(level=1)
    changed = compressed = 0
    descriptor = os.open(image, os.O_RDWR)
    try:
        pages = _overwrite(descriptor, share, run, random.Random(seed), noise=noise)
        for _, group in groupby(pages, key=itemgetter(0)):
            content = b"".join(page for _, page in group)
            changed += len(content)
            compressed += len(compressor.compress(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Change(changed, compressed)


def _overwrite(
    descriptor: int, share: float, run: int, choice: random.Random, *, noise: bool
) -> Iterator[tuple[int, bytes]]:
    """Overwrite pages; yield the new pages in order, each with the index of its chunk. Hold one run in memory."""
    # Whole runs of data only, and one more behind each, from which moved content is read.
    places = [range(-(-start // PAGE), end // PAGE - 2 * run, run) for start, end in extents(descriptor)]
    starts = list(accumulate((len(place) for place in places), initial=0))
    wanted = min(max(int(os.fstat(descriptor).st_size * share) // PAGE // run, 1), starts[-1])

    def position(number: int) -> int:
        index = bisect_right(starts, number) - 1
        return places[index][number - starts[index]] * PAGE

    for number in sorted(choice.sample(range(starts[-1]), wanted)):
        # Moved by less than a page, so that no page equals an older one, which a tool could find again.
        origin = position(choice.randrange(starts[-1])) + choice.randrange(1, PAGE)
        content = choice.randbytes(run * PAGE) if noise else os.pread(descriptor, run * PAGE, origin)
        os.pwrite(descriptor, content, position(number))
        for offset in range(0, run * PAGE, PAGE):
            yield (position(number) + offset) // CHUNK, content[offset : offset + PAGE]
