"""Reads and writes exports of NBD servers by libnbd."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from backy.api import Consistency, Extent, SourceError
from backy.debian import debian_modules
from backy.extents import joined

ALLOCATION: Final = "base:allocation"
BITMAP: Final = "qemu:dirty-bitmap:"
_ZERO: Final = 2
"""Flag of `base:allocation` in the NBD protocol: the range reads as zeroes."""
_DIRTY: Final = 1
"""Flag of `qemu:dirty-bitmap`: the range was written to."""
# the protocol has 32 bits for a length
_STEP: Final = 2**31
"""Bytes of the range whose status is asked for at a time."""
_PIECE: Final = 2**25
"""Bytes that any server reads and writes at a time."""


def libnbd() -> Any:  # noqa: ANN401  # it has no types
    """Return the module `nbd`; raise MissingModuleError if there is none."""
    return debian_modules("python3-libnbd", "libnbdmod", "nbd")[-1]


class Connection:
    """A connection to an export. Several threads may use it: libnbd lets one after the other."""

    def __init__(self, handle: Any, what: str) -> None:  # noqa: ANN401  # libnbd has no types
        self.handle = handle
        self.what = what
        self.explain: Callable[[str], str] = str
        """Adds to the text of an error what may have led to it."""
        self.size = int(handle.get_size())
        # a server may refuse what is not whole blocks of its own
        self._block = max(int(handle.get_block_size(libnbd().SIZE_MINIMUM)), 1)

    def knows(self, context: str) -> bool:
        """Tell whether the server answers for a metadata context."""
        return bool(self.handle.can_meta_context(context))

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes; raise SourceError if they can not be read."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise SourceError(f"{self.what} has {self.size} bytes: there are no {length} at {offset}")
        start = offset - offset % self._block
        end = min(-(-(offset + length) // self._block) * self._block, self.size)
        with _told(self.what, self.explain):
            pieces = [self.handle.pread(min(_PIECE, end - at), at) for at in range(start, end, _PIECE)]
        return b"".join(pieces)[offset - start :][:length]

    def write(self, data: bytes, offset: int) -> None:
        """Write all of `data`; raise SourceError if that fails."""
        head, tail = offset % self._block, -(offset + len(data)) % self._block
        if head or tail:
            data = self.read(offset - head, head) + data + self.read(offset + len(data), tail)
        with _told(self.what, self.explain):
            for at in range(0, len(data), _PIECE):
                self.handle.pwrite(data[at : at + _PIECE], offset - head + at)

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeroes; raise SourceError if that fails."""
        whole = 0 if offset % self._block else length - length % self._block
        if whole and self.handle.can_zero():
            with _told(self.what, self.explain):
                self.handle.zero(whole, offset)
        else:
            whole = 0
        for at in range(whole, length, _PIECE):
            self.write(bytes(min(_PIECE, length - at)), offset + at)

    def flush(self) -> None:
        """Make everything durable; raise SourceError if that fails."""
        with _told(self.what, self.explain):
            if self.handle.can_flush():
                self.handle.flush()

    def status(self, context: str) -> Iterator[tuple[int, int, int]]:
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

        with _told(self.what, self.explain):
            self.handle.block_status(min(_STEP, self.size - position), position, note)
        if not any(found[::2]):
            raise SourceError(f"{self.what}: the NBD server tells nothing of {context} at {position}")
        return list(zip(found[::2], found[1::2], strict=True))


@contextmanager
def opened(what: str, connect: Callable[[Any], None], bitmap: str | None = None) -> Iterator[Connection]:
    """Connect to an export while the context lasts, as `connect` does that gets a handle of libnbd.

    Raises:
        SourceError: that fails; the text begins with `what`.
    """
    nbd = libnbd()
    handle = nbd.NBD()
    for context in (ALLOCATION, *([BITMAP + bitmap] if bitmap else [])):
        handle.add_meta_context(context)
    try:
        with _told(what):
            connect(handle)
            connection = Connection(handle, what)
        yield connection
        connection.handle = None
    finally:
        with suppress(nbd.Error):
            handle.shutdown()
        # with its last reference the handle waits for the server, if that was started for this connection
        del handle


class Export:
    """An export as a snapshot. `consistency` tells what it is like; `earlier` is the size when its bitmap began."""

    def __init__(
        self,
        connection: Connection,
        consistency: Callable[[], Consistency],
        bitmap: str | None = None,
        earlier: int | None = None,
    ) -> None:
        self._connection = connection
        self._consistency = consistency
        self._bitmap = None if bitmap is None else BITMAP + bitmap
        self._earlier = earlier
        self.size = connection.size
        self.files: dict[str, bytes] = {}
        """What the machine has beside its disks."""
        # asked at first, as a handle tells nothing any more once its connection is lost
        self._has_holes = connection.knows(ALLOCATION)

    @property
    def consistency(self) -> Consistency:
        """What the image is like."""
        return self._consistency()

    def attachments(self) -> Mapping[str, bytes]:
        """Return what the machine has beside its disks, by name."""
        return self.files

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        return self._connection.read(offset, length)

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as far as the server knows them."""
        if not self._has_holes:
            return joined([Extent(0, self.size, data=True)] if self.size else [])
        return joined(
            Extent(offset, length, data=not flags & _ZERO)
            for offset, length, flags in self._connection.status(ALLOCATION)
        )

    def changes(self) -> Iterable[Extent] | None:
        """Yield the ranges in the bitmap, and what the image has grown by; None without a bitmap."""
        return None if self._bitmap is None else joined(self._changes(self._bitmap))

    def _changes(self, context: str) -> Iterator[Extent]:
        old = self.size if self._earlier is None else min(self._earlier, self.size)
        for offset, length, flags in self._connection.status(context):
            end = offset + length
            if flags & _DIRTY:
                yield Extent(offset, length, data=True)
            elif end > old:
                start = max(offset, old)
                yield Extent(start, end - start, data=True)


@contextmanager
def _told(what: str, explain: Callable[[str], str] = str) -> Iterator[None]:
    """Turn what libnbd raises into SourceError."""
    nbd = libnbd()
    try:
        yield
    except nbd.Error as error:
        raise SourceError(explain(f"{what}: {' '.join(error.string.split())}")) from error


def to_uri(uri: str, handle: Any) -> None:  # noqa: ANN401  # libnbd has no types
    """Connect to a URI."""
    # whoever writes the configuration may read any file with keys anyway
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)


def to_socket(path: Path, name: str, handle: Any) -> None:  # noqa: ANN401  # libnbd has no types
    """Connect to an export of the server that listens on a socket."""
    handle.set_export_name(name)
    handle.connect_unix(str(path))


def served_by(command: Sequence[str]) -> Callable[[Any], None]:
    """Return what starts a server for one connection, which ends with it."""
    return lambda handle: handle.connect_systemd_socket_activation(list(command))
