"""Removing chunks that no revision refers to: mark and sweep, without clocks and access times."""

from __future__ import annotations

import os
from collections.abc import Container

from backy.api import Held, Purged
from backy.storage.chunked.files import ChunkFile, ChunkFiles

FOLDERS = 256


def held(files: ChunkFiles, live: Container[bytes]) -> Held:
    """Count the full chunks that are there only because live deltas are made of them."""
    bases = [ChunkFile(base, None) for base in _bases(files, live) if base not in live]
    sizes = [files.size(file) for file in bases if files.exists(file)]
    return Held(len(sizes), sum(sizes))


def purge(files: ChunkFiles, live: Container[bytes]) -> Purged:
    """Remove every chunk file whose id is not in `live` and that is no base of a live delta.

    One listing finds the bases, for a delta's name has them; the removals go folder by folder. A crash in between
    leaves dead files only.
    """
    bases = _bases(files, live)
    count = size = 0
    for number in range(FOLDERS):
        for file in files.folder(number):
            if _needed(file, files, live) or (file.base is None and file.identity in bases):
                continue
            size += files.size(file)
            os.unlink(files.path(file))
            count += 1
    return Purged(count, size)


def _bases(files: ChunkFiles, live: Container[bytes]) -> set[bytes]:
    """Return the ids of the full chunks that live deltas are made of."""
    return {
        file.base
        for number in range(FOLDERS)
        for file in files.folder(number)
        if file.base is not None and _needed(file, files, live)
    }


def _needed(file: ChunkFile, files: ChunkFiles, live: Container[bytes]) -> bool:
    """Tell whether a live chunk is read from this very file: beside a full one, a delta of the same id is not."""
    if file.identity not in live:
        return False
    return file.base is None or not files.exists(ChunkFile(file.identity, None))
