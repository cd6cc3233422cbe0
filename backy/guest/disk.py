"""Finds the file systems in an image: on the whole image, in partitions (MBR, GPT), and in logical volumes (LVM)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from backy.errors import StorageError
from backy.guest.guard import GuestError, guarded, guarded_items
from backy.mount.open_images import Handle

WHOLE = "disk"
"""The name of a file system that is not in a partition."""
# Offsets and marks of the superblocks, from Linux' ext4.h, xfs_format.h and LVM2's label.h.
_EXT_MAGIC = (0x438, b"\x53\xef")
_XFS_MAGIC = (0, b"XFSB")
_LVM_MAGIC = b"LABELONE"
_SECTOR = 512


class ImageStream(io.RawIOBase):
    """A stored image as a file, for libraries that read files."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._position = 0
        self.size = handle.image.chunks.size

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the current position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or to the end; raise StorageError if they are damaged."""
        wanted = self.size - self._position if size < 0 else size
        try:
            data = self._handle.read(self._position, max(wanted, 0))
        except OSError as error:
            raise StorageError(f"the backup is damaged: {error.strerror}") from error
        self._position += len(data)
        return data


class Volume(NamedTuple):
    """A range of an image that may have a file system."""

    name: str
    kind: str
    """`ext`, `xfs`, or empty for anything else."""
    size: int
    """Bytes of the volume."""
    open: Callable[[], Any]
    """Opens the volume as a binary file."""


def volumes(stream: ImageStream) -> list[Volume]:
    """Return the volumes of an image; raise GuestError if there are none that are known."""
    whole = _kind(stream)
    found = [Volume(WHOLE, whole, stream.size, lambda: stream)] if whole else []
    for partition in _partitions(stream):
        found += _logical(partition) or [partition]
    if not found:
        raise GuestError("the image has no file system that is known, and no partitions")
    return found


def _partitions(stream: ImageStream) -> Iterator[Volume]:
    from dissect.util.stream import RangeStream
    from dissect.volume.disk import Disk

    stream.seek(0)
    try:
        disk = guarded("the partition table", lambda: Disk(stream))
    except GuestError:
        return  # there is none, as on a disk that is a single file system or a physical volume
    for partition in guarded_items("the partition table", lambda: disk.partitions):
        size = _size(partition)
        yield _volume(str(partition.number), size, partial(RangeStream, stream, partition.offset, size))


def _size(partition: Any) -> int:  # noqa: ANN401  # the library has no types
    """Return the size of a partition in bytes."""
    # The library leaves out the last sector of partitions of a GPT.
    last: int | None = getattr(partition.raw, "last_lba", None)
    size: int = partition.size if last is None else (last + 1) * _SECTOR - partition.offset
    return size


def _logical(partition: Volume) -> list[Volume]:
    """Return the logical volumes of a group that lies in this partition alone; nothing for other partitions."""
    from dissect.volume.lvm import LVM2

    file = partition.open()
    file.seek(0)
    if _LVM_MAGIC not in guarded("a partition", lambda: file.read(4 * _SECTOR)):
        return []

    def logical() -> list[Volume]:
        group = LVM2(file).vg
        return [_volume(f"{group.name}/{volume.name}", volume.open().size, volume.open) for volume in group.lv]

    try:
        return guarded(f"the LVM in partition {partition.name}", logical)
    except GuestError:
        return []


def _volume(name: str, size: int, opened: Callable[[], Any]) -> Volume:
    try:
        kind = guarded("a partition", lambda: _kind(opened()))
    except GuestError:
        kind = ""
    return Volume(name, kind, size, opened)


def _kind(file: Any) -> str:  # noqa: ANN401  # the library has no type for its files
    for kind, (offset, magic) in {"ext": _EXT_MAGIC, "xfs": _XFS_MAGIC}.items():
        file.seek(offset)
        if file.read(len(magic)) == magic:
            return kind
    return ""
