"""Backups with nothing around the source, so that a test sees what was read."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable

from backy.api import Source
from backy_sources_qemu.bitmaps import BLOCK


class Backups:
    """Keeps the image of the newest complete backup."""

    def __init__(self, source: Source, content: Callable[[], bytes]) -> None:
        self.source = source
        self._content = content
        self._ids = (f"revision{number}" for number in itertools.count(1))
        self.last: str | None = None
        self.image = b""
        self.consistency = ""

    def run(self, meanwhile: Callable[[], object] = lambda: None) -> int | None:
        """Back up, and see that the image is what the disk had at the begin; return what was read if that is changes.

        The machine may do something `meanwhile`, after the disk was frozen. The last block that the disk had is read
        each time, and does not count.
        """
        revision_id = next(self._ids)
        expected = hashlib.sha256(self._content()).hexdigest()
        with self.source.snapshot(revision_id, self.last) as snapshot:
            meanwhile()
            changes = snapshot.changes() if self.last else None
            always = range((len(self.image) - 1) // BLOCK * BLOCK, len(self.image))
            image = bytearray(self.image[: snapshot.size].ljust(snapshot.size, b"\0"))
            read = 0
            for extent in snapshot.extents() if changes is None else changes:
                image[extent.offset : extent.end] = bytes(extent.length)
                if extent.data:
                    image[extent.offset : extent.end] = snapshot.pread(extent.offset, extent.length)
                    read += extent.length - len(range(max(extent.offset, always.start), min(extent.end, always.stop)))
            self.consistency = snapshot.consistency
        self.image, self.last = bytes(image), revision_id
        assert hashlib.sha256(image).hexdigest() == expected
        return None if changes is None else read
