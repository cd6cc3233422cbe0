"""Removes chunks that no revision refers to: mark and sweep, without clocks and access times."""

import os
from collections.abc import Container

from backy.api import Held, Purged
from backy_storages_chunked.files import ChunkFile, ChunkFiles

FOLDERS = 256


def held(files: ChunkFiles, live: Container[bytes]) -> Held:
    """Count the files that are kept only because live deltas are made of them."""
    others = [file for file in _ingredients(files, live) if not _needed(file, files, live)]
    sizes = [files.size(file) for file in others if files.exists(file)]
    return Held(len(sizes), sum(sizes))


def purge(files: ChunkFiles, live: Container[bytes], kept: Container[bytes]) -> Purged:
    """Remove every chunk file that no chunk in `live` is read from, but for those of chunks in `kept`."""
    # The names tell what deltas are made of, so no file is read. A crash between removals leaves dead files only.
    ingredients = _ingredients(files, live)
    count = size = 0
    for number in range(FOLDERS):
        for file in files.folder(number):
            if not any(_needed(file, files, ids) for ids in (live, kept)) and file not in ingredients:
                size += files.size(file)
                os.unlink(files.path(file))
                count += 1
    return Purged(count, size)


def _ingredients(files: ChunkFiles, live: Container[bytes]) -> set[ChunkFile]:
    """Return the files that live deltas are made of."""
    return {
        ingredient
        for number in range(FOLDERS)
        for file in files.folder(number)
        if file.base is not None and _needed(file, files, live)
        for ingredient in file.made_of
    }


def _needed(file: ChunkFile, files: ChunkFiles, live: Container[bytes]) -> bool:
    """Return whether a live chunk is read from this file."""
    if file.chunk_id not in live:
        return False
    # Beside a full chunk, a delta with the same id is not read.
    return file.base is None or not files.exists(ChunkFile(file.chunk_id))
