"""The bare work of a step, without names, maps and checks: the best that the machine can do.

Each yardstick runs as one process, `python -m benchmarks.yardsticks NAME FILE FOLDER`, on two threads with whole
chunks. It reads data and skips holes, and writes to FOLDER, which is empty.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard
from blake3 import blake3

from benchmarks.images import CHUNK, extents

# As many as the machine has processors on which the goals were set.
THREADS = 2
_FRAME = struct.Struct("<QQ")
PACKED = "packed"
"""The name of the file that `pack` writes."""
# Contexts of zstd must not be used by two threads at once, and making one for each chunk would cost time.
_local = threading.local()


def compress(image: Path, _folder: Path) -> None:
    """Read the image and compress each chunk by zstd at level 1. Drop the results."""
    descriptor = os.open(image, os.O_RDONLY)
    _on_threads(lambda offset: _compressor().compress(os.pread(descriptor, CHUNK, offset)), _chunks(descriptor))


def hashed(image: Path, _folder: Path) -> None:
    """Read the image and hash each chunk by BLAKE3."""
    descriptor = os.open(image, os.O_RDONLY)
    _on_threads(lambda offset: blake3(os.pread(descriptor, CHUNK, offset)).digest(), _chunks(descriptor))


def store(image: Path, folder: Path) -> None:
    """Do as `compress`, and write each frame to a file of its own."""
    # The measurement syncs the file system at the end, as for every command.
    descriptor = os.open(image, os.O_RDONLY)

    def one(offset: int) -> None:
        frame = _compressor().compress(os.pread(descriptor, CHUNK, offset))
        target = os.open(folder / str(offset), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(target, frame)
        # Makes the kernel begin to write, so that the disk works while other chunks are compressed.
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(target)

    _on_threads(one, _chunks(descriptor))


def pack(image: Path, folder: Path) -> None:
    """Write the compressed chunks one after another, for `unpack` and `check`."""
    descriptor = os.open(image, os.O_RDONLY)
    with (folder / PACKED).open("wb") as stream:
        for offset in _chunks(descriptor):
            frame = _compressor().compress(os.pread(descriptor, CHUNK, offset))
            stream.write(_FRAME.pack(offset, len(frame)) + frame)


def unpack(packed: Path, folder: Path) -> None:
    """Decompress the file of `pack` and write a new image."""
    source = os.open(packed, os.O_RDONLY)
    target = os.open(folder / "image", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def one(position: int) -> None:
        offset, content = _unpacked(source, position)
        os.pwrite(target, content, offset)

    _on_threads(one, _frames(source))


def check(packed: Path, _folder: Path) -> None:
    """Decompress the file of `pack` and hash each chunk by BLAKE3."""
    source = os.open(packed, os.O_RDONLY)
    _on_threads(lambda position: blake3(_unpacked(source, position)[1]).digest(), _frames(source))


def _unpacked(source: int, position: int) -> tuple[int, bytes]:
    """Read and decompress the frame at `position`; return its offset in the image and its content."""
    offset, length = _FRAME.unpack(os.pread(source, _FRAME.size, position))
    return offset, _decompressor().decompress(os.pread(source, length, position + _FRAME.size))


def _frames(source: int) -> Iterator[int]:
    position = 0
    while header := os.pread(source, _FRAME.size, position):
        yield position
        position += _FRAME.size + _FRAME.unpack(header)[1]


def _chunks(descriptor: int) -> Iterator[int]:
    """Yield the offsets of the chunks with data, each once."""
    # Two ranges of data may lie in one chunk.
    done = 0
    for start, end in extents(descriptor):
        for offset in range(max(start // CHUNK * CHUNK, done), end, CHUNK):
            yield offset
            done = offset + CHUNK


def _on_threads(function: Callable[[int], object], items: Iterator[int]) -> None:
    """Call `function` for all items. Each thread takes the next item when it is ready."""
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                item = next(items, None)
            if item is None:
                return
            function(item)

    with ThreadPoolExecutor(THREADS) as pool:
        for future in [pool.submit(work) for _ in range(THREADS)]:
            future.result()


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=1)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor


YARDSTICKS: dict[str, Callable[[Path, Path], None]] = {
    "compress": compress,
    "store": store,
    "hash": hashed,
    "pack": pack,
    "unpack": unpack,
    "check": check,
}

if __name__ == "__main__":
    YARDSTICKS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
