"""Removing chunks that no revision refers to: mark and sweep, without clocks and access times."""

from __future__ import annotations

import os
from collections.abc import Container

from backy.api import Purged
from backy.storage.chunked.files import ChunkFile, ChunkFiles

FOLDERS = 256


def purge(files: ChunkFiles, live: Container[bytes]) -> Purged:
    """Remove every chunk file whose id is not in `live` and that is no base of a live delta.

    One listing finds the bases, for a delta's name has them; the removals go folder by folder. A crash in between
    leaves dead files only.
    """
    bases = {
        file.base
        for number in range(FOLDERS)
        for file in files.folder(number)
        if file.base is not None and _needed(file, files, live)
    }
    count = size = 0
    for number in range(FOLDERS):
        for file in files.folder(number):
            if _needed(file, files, live) or (file.base is None and file.identity in bases):
                continue
            path = files.path(file)
            size += os.stat(path).st_size
            os.unlink(path)
            count += 1
    return Purged(count, size)


def _needed(file: ChunkFile, files: ChunkFiles, live: Container[bytes]) -> bool:
    """Tell whether a live chunk is read from this very file: beside a full one, a delta of the same id is not."""
    if file.identity not in live:
        return False
    return file.base is None or not os.path.exists(files.path(ChunkFile(file.identity, None)))
