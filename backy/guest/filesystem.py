"""Reads folders, files and links of a guest's file system by the libraries dissect.extfs and dissect.xfs.

It corrects some results of those: wrong names, the last entry of a folder, blocks that were reserved and never written.
It does not replay the journal, which would be writing.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from backy.api import Extent
from backy.guest.disk import Volume
from backy.guest.guard import GuestError, guarded, guarded_items

_LONGEST_LINK = 4096
"""Bytes of the longest target of a link on Linux."""
_MOST_LINKS = 40
"""Links in one path that Linux follows (path_resolution(7))."""
_PIECE = 2**20
"""Bytes that are read at a time."""


class Node(ABC):
    """A file, folder or link."""

    def __init__(self, name: str, inode: Any) -> None:  # noqa: ANN401  # of one of the libraries
        self.name = name
        self._inode = inode
        what = f"'{name}'"
        self._what = what
        self.number: int = inode.inum
        raw = guarded(what, lambda: inode.inode)
        self.mode: int = raw.i_mode if hasattr(raw, "i_mode") else raw.di_mode
        self.size: int = guarded(what, lambda: inode.size)
        self.modified: int = guarded(what, lambda: inode.mtime_ns)
        """Nanoseconds since 1970."""

    @property
    def kind(self) -> int:
        """The kind of file, as of stat.S_IFMT."""
        return stat.S_IFMT(self.mode)

    @property
    def target(self) -> str:
        """The target of a link; raises GuestError if it can not be read."""
        if self.size > _LONGEST_LINK:
            raise GuestError(f"{self._what} is a link of {self.size} bytes, which can not be")
        return guarded(self._what, lambda: str(self._inode.link)).rstrip("\0")

    def children(self) -> Iterator[Node]:
        """Yield the entries of a folder; raise GuestError if it can not be read."""
        if self.kind != stat.S_IFDIR:
            raise GuestError(f"{self._what} is no folder")
        for inode in guarded_items(self._what, self._entries):
            name = inode.filename
            # A hostile guest may write a name that leads out of the folder.
            if name and name not in {".", ".."} and "/" not in name and "\0" not in name:
                yield type(self)(name, inode)

    def _entries(self) -> Iterator[Any]:
        yield from self._inode.iterdir()

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes of a file in order; raise GuestError if they can not be told."""
        end = 0
        for data, length in guarded(self._what, self._runs):
            if length <= 0:
                raise GuestError(f"{self._what} has blocks that overlap")
            length = min(length, self.size - end)  # noqa: PLW2901  # the last block may reach beyond the end
            if length > 0:
                yield Extent(end, length, data)
                end += length
        if end < self.size:
            yield Extent(end, self.size - end, data=False)

    @abstractmethod
    def _runs(self) -> list[tuple[bool, int]]:
        """Return, in order, whether there is data, and for how many bytes."""

    def read(self, extent: Extent) -> Iterator[tuple[int, bytes]]:
        """Yield offset and content of each piece of an extent of data; raise GuestError if it can not be read."""
        file = guarded(self._what, self._inode.open)
        for offset in range(extent.offset, extent.end, _PIECE):
            length = min(_PIECE, extent.end - offset)

            def piece(offset: int = offset, length: int = length) -> bytes:
                file.seek(offset)
                return bytes(file.read(length))

            data = guarded(self._what, piece)
            if len(data) != length:
                raise GuestError(f"{self._what} ends after {offset + len(data)} bytes instead of {self.size}")
            yield offset, data


class _ExtNode(Node):
    """A node of ext2, ext3 or ext4."""

    def _entries(self) -> Iterator[Any]:
        # The library skips an entry that begins 12 bytes before the end, where a short name fits.
        inode = type(self._inode)(self._inode.extfs, self._inode.inum)
        inode.__dict__["size"] = self.size + 12
        yield from inode.iterdir()

    def _runs(self) -> list[tuple[bool, int]]:
        from dissect.extfs.c_ext import c_ext

        # Small content lies in the inode itself, without blocks.
        if self._inode.inode.i_flags & c_ext.EXT4_INLINE_DATA_FL:
            return [(True, self.size)]
        size = self._inode.extfs.block_size
        return [(block is not None, count * size) for block, count in self._inode.dataruns()]


class _XfsNode(Node):
    """A node of XFS."""

    def _runs(self) -> list[tuple[bool, int]]:
        # The library takes blocks that were reserved and not written for data. It would show other files' old data.
        system = self._inode.xfs
        runs: list[tuple[int | None, int]] = []
        end = 0
        for offset, block, count, unwritten in self._inode._iter_blocks():  # noqa: SLF001  # nothing else has the flag
            if offset != end:
                runs.append((None, offset - end))
            group, rest = block >> system.sb.sb_agblklog, block & (1 << system.sb.sb_agblklog) - 1
            runs.append((None if unwritten else group * system.sb.sb_agblocks + rest, count))
            end = offset + count
        total = -(-self.size // system.block_size)
        if end < total:
            runs.append((None, total - end))
        self._inode.__dict__["dataruns"] = runs
        return [(block is not None, count * system.block_size) for block, count in runs]


def root(volume: Volume) -> Node:
    """Return the root folder of the file system in a volume; raise GuestError if there is no such file system."""
    what = f"the file system on {volume.name}"
    if volume.kind == "ext":
        from dissect.extfs import ExtFS

        system = guarded(what, lambda: ExtFS(volume.open()))
        system.sb.s_inodes_count += 1  # the library takes the number of the last inode for one too many
        return _ExtNode("/", system.root)
    if volume.kind == "xfs":
        from dissect.xfs import XFS

        return _XfsNode("/", guarded(what, lambda: XFS(volume.open())).root)
    raise GuestError(f"there is neither an ext nor an XFS file system on {volume.name}")


def find(top: Node, path: str) -> Node:
    """Return the node at a path. Follow all links, also the last one, within the guest's file system.

    Raises:
        GuestError: there is no such node, or links lead in circles.
    """
    trail = [top]
    names = path.split("/")[::-1]
    links = 0
    while names:
        name = names.pop()
        if name in {"", "."}:
            continue
        if name == "..":
            trail = trail[:-1] or [top]
            continue
        found = next((child for child in trail[-1].children() if child.name == name), None)
        if found is None:
            raise GuestError(f"there is no '{name}' in '{trail[-1].name}'")
        if found.kind == stat.S_IFLNK:
            links += 1
            if links > _MOST_LINKS:
                raise GuestError(f"'{path}': links lead in circles")
            trail = [top] if found.target.startswith("/") else trail
            names += found.target.split("/")[::-1]
        else:
            trail.append(found)
    return trail[-1]
