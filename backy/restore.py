"""Writing a revision to where it is wanted: a sparse file, a block device, or a stream."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from backy.api import CHUNK_SIZE, PAGE_SIZE, Progress
from backy.durable import write_all
from backy.errors import BackyError, TargetError
from backy.image import StoredImage
from backy.pages import differing_pages, runs
from backy.pipeline import in_parallel

log = logging.getLogger(__name__)
_BLKZEROOUT = 0x127F
"""ioctl of linux/fs.h: let a range of a block device read as zeroes, by whatever way is fastest."""
_ZEROES = bytes(CHUNK_SIZE)


class Target(Protocol):
    """A place with random access, sized like the image and reading as zeroes where nothing is written."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`, from any thread."""

    def zero(self, offset: int, length: int) -> None:
        """Let a range read as zeroes, from any thread."""


def restore(image: StoredImage, target: Target, progress: Progress) -> None:
    """Write `image` to `target`; holes stay holes, and pages of zeroes are not written.

    Raises:
        ChunkDamageError: a chunk can not be read; what is in the target is incomplete.
    """

    def copy(index: int) -> int:
        data = image.chunk(index)
        start = index * CHUNK_SIZE
        end = 0
        for offset, length in runs(differing_pages(data, _ZEROES[: len(data)]), len(data)):
            if offset > end:
                target.zero(start + end, offset - end)
            target.pwrite(data[offset : offset + length], start + offset)
            end = offset + length
        if end < len(data):
            target.zero(start + end, len(data) - end)
        return len(data)

    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)
    for length in in_parallel(copy, image.chunks.data()):
        progress(length)


def stream(image: StoredImage, descriptor: int, progress: Progress) -> None:
    """Write `image` to a pipe, from the first byte to the last.

    Raises:
        ChunkDamageError: a chunk can not be read; the stream ends before it.
        OSError: nobody reads the pipe any more.
    """
    for data in in_parallel(image.chunk, range(len(image.chunks))):
        write_all(descriptor, data)
        progress(len(data))


@contextmanager
def open_target(path: Path, size: int, repository: Path) -> Iterator[Target]:
    """Open a file, which is made or emptied, or a block device for an image of `size` bytes; sync it at the end.

    Raises:
        TargetError: it is neither, is too small, in use, or part of the repository; or what was written is incomplete.
    """
    if path.resolve().is_relative_to(repository.resolve()):
        raise TargetError(f"{path} lies inside of the repository: restore to another place")
    if path.is_block_device():
        descriptor = _open_device(path, size)
        target: Target = _Device(descriptor)
    elif path.exists() and not path.is_file():
        raise TargetError(f"{path} is neither a file nor a block device; use '-' to write to a pipe")
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        target = _SparseFile(descriptor)
    try:
        with _told_if_incomplete(path):
            if isinstance(target, _SparseFile):
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, size)
            yield target
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_if_incomplete(path: Path) -> Iterator[None]:
    """Add to whatever ends a restore that its target is not to be used."""
    try:
        yield
    except BackyError as error:
        raise TargetError(f"{error}; {path} is incomplete") from error
    except OSError as error:
        raise TargetError(f"{path} is incomplete: {error.strerror or error}") from error
    except BaseException:
        log.error("%s is incomplete", path)  # noqa: TRY400  # who interrupts a restore needs no traceback
        raise


def _open_device(path: Path, size: int) -> int:
    try:
        # without O_CREAT, O_EXCL refuses a device that is mounted or otherwise in use
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        hint = "; is it mounted?" if error.errno == errno.EBUSY else ""
        raise TargetError(f"{path}: {error.strerror}{hint}") from error
    room = os.lseek(descriptor, 0, os.SEEK_END)
    if room < size:
        os.close(descriptor)
        raise TargetError(f"{path} has {room} bytes, the image needs {size}")
    return descriptor


class _SparseFile:
    """A new or emptied file: what is not written is a hole."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pwrite(self, data: bytes, offset: int) -> None:
        _pwrite_all(self._descriptor, data, offset)

    def zero(self, offset: int, length: int) -> None:
        pass


class _Device:
    """A block device: what is in it already has to be zeroed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pwrite(self, data: bytes, offset: int) -> None:
        _pwrite_all(self._descriptor, data, offset)

    def zero(self, offset: int, length: int) -> None:
        whole = length - length % PAGE_SIZE
        if whole:
            fcntl.ioctl(self._descriptor, _BLKZEROOUT, struct.pack("QQ", offset, whole))
        _pwrite_all(self._descriptor, bytes(length - whole), offset + whole)


def _pwrite_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
