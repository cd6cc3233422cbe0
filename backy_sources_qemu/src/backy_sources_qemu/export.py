"""Reads and writes exports of NBD servers by libnbd."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from backy.api import Consistency, Extent, SourceError, TargetError
from backy.debian import debian_modules
from backy.errors import raising
from backy.extents import filled, joined

ALLOCATION: Final = "base:allocation"
BITMAP: Final = "qemu:dirty-bitmap:"
_ZERO: Final = 2
"""Flag of `base:allocation` in the NBD protocol: the range reads as zeroes."""
_DIRTY: Final = 1
"""Flag of `qemu:dirty-bitmap`: the range was written to."""
# the protocol has 32 bits for a length
_ASKED: Final = 2**31
"""Bytes of the range whose status is asked for at a time."""
_ZEROED: Final = 2**30
"""Bytes that are zeroed at a time."""
_PIECE: Final = 2**25
"""Bytes that any server reads and writes at a time."""


def libnbd() -> Any:  # noqa: ANN401  # it has no types
    """Return the module `nbd`; raise MissingModuleError if there is none."""
    return debian_modules("python3-libnbd", "libnbdmod", "nbd")[-1]


class Export:
    """An export as a snapshot. Several threads may use it: libnbd lets one after the other."""

    def __init__(self, handle: Any, what: str, bitmap: str | None) -> None:  # noqa: ANN401  # libnbd has no types
        self.handle = handle
        self.what = what
        self.explain: Callable[[str], str] = str
        """Adds to the text of an error what may have led to it."""
        self.size = int(handle.get_size())
        # a server may refuse what is not whole blocks of its own
        self.block = max(int(handle.get_block_size(libnbd().SIZE_MINIMUM)), 1)
        self.bitmap = bitmap
        self.files: dict[str, bytes] = {}
        """What the machine has beside its disks."""
        self.judge: Callable[[], Consistency] = lambda: "unknown"
        """Tells what the image is like."""
        self.earlier: int | None = None
        """Bytes that the image had when the bitmap began."""
        # asked at first, as a handle tells nothing any more once its connection is lost
        self._has_holes = self.knows(ALLOCATION)

    @property
    def consistency(self) -> Consistency:
        """What the image is like."""
        return self.judge()

    def attachments(self) -> Mapping[str, bytes]:
        """Return what the machine has beside its disks, by name."""
        return self.files

    def knows(self, context: str) -> bool:
        """Tell whether the server answers for a metadata context."""
        return bool(self.handle.can_meta_context(context))

    def told(self) -> AbstractContextManager[None]:
        """Turn what libnbd raises into SourceError."""
        return _told(self.what, self.explain)

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise SourceError(f"{self.what} has {self.size} bytes: there are no {length} at {offset}")
        start = offset - offset % self.block
        end = min(-(-(offset + length) // self.block) * self.block, self.size)
        with self.told():
            pieces = [self.handle.pread(min(_PIECE, end - at), at) for at in range(start, end, _PIECE)]
        return b"".join(pieces)[offset - start :][:length]

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as far as the server knows them."""
        if not self._has_holes:
            return joined([Extent(0, self.size, data=True)] if self.size else [])
        found = self._ranges(ALLOCATION)
        return joined(Extent(offset, length, data=not flags & _ZERO) for offset, length, flags in found)

    def changes(self) -> Iterable[Extent] | None:
        """Yield the ranges in the bitmap, and what the image has grown by; None without a bitmap."""
        if self.bitmap is None:
            return None
        found, earlier = self._ranges(BITMAP + self.bitmap), self.size if self.earlier is None else self.earlier
        dirty = (Extent(at, length, data=True) for at, length, flags in found if flags & _DIRTY)
        return joined(filled(dirty, earlier, self.size, data=True))

    def _ranges(self, context: str) -> Iterator[tuple[int, int, int]]:
        """Yield offset, length and flags of ranges, from the first byte to the last."""
        # a server may answer for less than it was asked for, so the next question begins where the answer ended
        position = 0
        while position < self.size:
            for length, flags in self._status(context, position):
                inside = min(length, self.size - position)
                if inside:
                    yield position, inside, flags
                position += inside

    def _status(self, context: str, position: int) -> list[tuple[int, int]]:
        found: list[int] = []

        def note(name: str, _offset: int, entries: list[int], _error: object) -> None:
            if name == context:
                found.extend(entries)

        with self.told():
            self.handle.block_status(min(_ASKED, self.size - position), position, note)
        if not any(found[::2]):
            raise SourceError(f"{self.what}: the NBD server tells nothing of {context} at {position}")
        return list(zip(found[::2], found[1::2], strict=True))


@contextmanager
def opened(what: str, server: str | Sequence[str], bitmap: str | None = None) -> Iterator[Export]:
    """Open an export while the context lasts: that of a URI, or of a program that is started and ends with it.

    Raises:
        SourceError: that fails; the text begins with `what`.
    """
    nbd = libnbd()
    handle = nbd.NBD()
    for context in (ALLOCATION, *([BITMAP + bitmap] if bitmap else [])):
        handle.add_meta_context(context)
    try:
        with _told(what):
            if isinstance(server, str):
                # whoever writes the configuration may read any file with keys anyway
                handle.set_uri_allow_local_file(True)
                handle.connect_uri(server)
            else:
                handle.connect_systemd_socket_activation(server)
            export = Export(handle, what, bitmap)
        yield export
        export.handle = None
    finally:
        with suppress(nbd.Error):
            handle.shutdown()
        # with its last reference the handle waits for the server, if that was started for this connection
        del handle


@contextmanager
def _told(what: str, explain: Callable[[str], str] = str) -> Iterator[None]:
    """Turn what libnbd raises into SourceError."""
    nbd = libnbd()
    try:
        yield
    except nbd.Error as error:
        raise SourceError(explain(f"{what}: {' '.join(error.string.split())}")) from error


class ExportTarget:
    """A writable export. Several threads may write. `is_empty` tells that it reads as zeroes."""

    def __init__(self, opened: Export, *, is_empty: bool) -> None:
        self._export = opened
        self._is_empty = is_empty

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        read, block = self._export.pread, self._export.block
        head, tail = offset % block, -(offset + len(data)) % block
        with raising(TargetError, self._export.what), self._export.told():
            if head or tail:
                data = read(offset - head, head) + data + read(offset + len(data), tail)
            for at in range(0, len(data), _PIECE):
                self._export.handle.pwrite(data[at : at + _PIECE], offset - head + at)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes. What is empty stays so."""
        if self._is_empty:
            return
        end, block = offset + length, self._export.block
        while offset < end:
            whole = 0 if offset % block else min(end - offset, _ZEROED) // block * block
            with raising(TargetError, self._export.what), self._export.told():
                if whole and self._export.handle.can_zero():
                    self._export.handle.zero(whole, offset)
                else:
                    whole = min(_PIECE, end - offset)
                    self.pwrite(bytes(whole), offset)
            offset += whole

    def finish(self) -> None:
        """Make everything durable."""
        with raising(TargetError, self._export.what), self._export.told():
            if self._export.handle.can_flush():
                self._export.handle.flush()
