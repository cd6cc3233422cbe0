"""Backs up a disk: freezes a point in time, reads it, and keeps the bitmap for the next backup."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backy.api import Extent, Snapshot, SourceError
from backy_sources_qemu.machine import Machine

log = logging.getLogger(__name__)
ALLOCATION = "base:allocation"
ZERO = 2
"""Flag of `base:allocation` in the NBD protocol: the range reads as zeroes."""
DIRTY = 1
"""Flag of `qemu:dirty-bitmap`: the range was written to."""
# The NBD protocol has 32 bits for a length.
STEP = 2**31
"""Bytes of the range whose status is asked for at a time."""


class QemuSource:
    """A disk of a running machine."""

    # A full comparison would read the whole disk while the guest works on it.
    verifier = "sample"

    def __init__(self, socket: Path, node: str, scratch: Path, job: str) -> None:
        self._socket = socket
        self._node = node
        self._scratch = scratch
        self._prefix = f"backy-{job}-"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze a point in time. Its bitmap replaces that of `parent` after a complete backup."""
        bitmap = self._prefix + revision_id
        with Machine.connected(self._socket, self._node) as machine, self._folder() as folder:
            machine.end()  # a killed backup may have left its export
            base = self._base(machine, parent)
            size = machine.disk()["image"]["virtual-size"]
            _make_scratch(folder / "scratch.qcow2", size)
            try:
                machine.begin(folder / "scratch.qcow2", bitmap, base)
                machine.export(folder / "nbd", base)
                with _Disk.opened(folder / "nbd", base) as disk:
                    yield disk
            # A failed backup must not lose the changes since `parent`.
            except BaseException:
                with suppress(SourceError):
                    self._give_up(machine, base, bitmap)
                raise
            machine.end()
            machine.remove_bitmaps(machine.bitmaps(self._prefix).keys() - {bitmap})

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove the bitmaps of other revisions."""
        with Machine.connected(self._socket, self._node) as machine:
            kept = {self._prefix + revision_id for revision_id in revision_ids}
            machine.remove_bitmaps(machine.bitmaps(self._prefix).keys() - kept)

    def _base(self, machine: Machine, parent: str | None) -> str | None:
        """Return the bitmap with the changes since `parent`; None if there is none that is reliable."""
        bitmaps = machine.bitmaps(self._prefix)
        wanted = self._prefix + (parent or "")
        if parent is not None and bitmaps.get(wanted):
            return wanted
        if parent is not None:
            log.warning("QEMU has no bitmap since revision %s: everything is read", parent)
        return None

    @staticmethod
    def _give_up(machine: Machine, base: str | None, bitmap: str) -> None:
        machine.end()
        if bitmap in machine.bitmaps(bitmap):
            if base is not None:
                machine.keep_base(base, bitmap)
            machine.remove_bitmaps([bitmap])

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="backy-qemu-", dir=self._scratch) as folder:
            yield Path(folder)


def _make_scratch(path: Path, size: int) -> None:
    """Make the file for blocks that the guest overwrites."""
    command = ["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # nothing of it is a guest's
    except FileNotFoundError:
        raise SourceError("the program qemu-img is missing: install qemu-utils") from None
    except subprocess.CalledProcessError as error:
        raise SourceError(f"qemu-img: {' '.join(error.stderr.split())}") from error


class _Disk:
    """A frozen disk, read over NBD."""

    # Threads need no lock of ours: libnbd lets one after the other use a connection.
    def __init__(self, connection: Any, base: str | None) -> None:  # noqa: ANN401  # libnbd has no types
        self._connection = connection
        self._context = None if base is None else f"qemu:dirty-bitmap:{base}"
        self.size = int(connection.get_size())

    @classmethod
    @contextmanager
    def opened(cls, socket: Path, base: str | None) -> Iterator[_Disk]:
        """Connect to an export that has the bitmap `base`."""
        try:
            import nbd  # type: ignore[import-untyped]  # libnbd has no types
        except ImportError:
            raise SourceError("Python can not import nbd: install Debian's python3-libnbd") from None
        connection = nbd.NBD()
        connection.add_meta_context(ALLOCATION)
        if base is not None:
            connection.add_meta_context(f"qemu:dirty-bitmap:{base}")
        try:
            connection.connect_unix(str(socket))
            yield cls(connection, base)
        except nbd.Error as error:
            raise SourceError(f"QEMU's NBD export: {error.string}") from error
        finally:
            with suppress(nbd.Error):
                connection.shutdown()

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise SourceError(f"bytes {offset} to {offset + length} are outside of the disk of {self.size} bytes")
        return bytes(self._connection.pread(length, offset)) if length else b""

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes as QEMU knows them."""
        for offset, length, flags in self._status(ALLOCATION):
            yield Extent(offset, length, data=not flags & ZERO)

    def changes(self) -> list[Extent] | None:
        """Return the ranges in the bitmap of the parent; None if there is no such bitmap."""
        if self._context is None:
            return None
        return [
            Extent(offset, length, data=True) for offset, length, flags in self._status(self._context) if flags & DIRTY
        ]

    def _status(self, context: str) -> Iterator[tuple[int, int, int]]:
        """Yield offset, length and flags of ranges, from the first byte to the last."""
        # A server may answer for less than it was asked for, so the next question begins where the answer ended.
        position = 0
        while position < self.size:
            found: list[int] = []

            def note(name: str, _offset: int, entries: list[int], _error: int, found: list[int] = found) -> None:
                if name == context:
                    found.extend(entries)

            self._connection.block_status(min(STEP, self.size - position), position, note)
            if not found:
                raise SourceError(f"QEMU tells nothing of {context}")
            for length, flags in zip(found[::2], found[1::2], strict=True):
                inside = min(length, self.size - position)
                if inside:
                    yield position, inside, flags
                position += inside
