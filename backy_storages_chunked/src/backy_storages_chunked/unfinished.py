"""The file `unfinished` of a store: the ids of the chunks that a backup has stored which did not end, by their index.

It has 32 bytes for each chunk of the image, zeroes for one that is not stored. So the backups that fail one after the
other keep one image together, whatever they store. Nothing depends on what it says: a chunk is read back before a
backup relies on it.
"""

import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from backy.api import LARGEST_IMAGE, Leftover, chunk_count
from backy.durable import read_file
from backy.errors import ChunkDamageError
from backy_storages_chunked.files import ChunkFiles

log = logging.getLogger(__name__)
NAME = "unfinished"
_ID_SIZE = 32
_LARGEST = chunk_count(LARGEST_IMAGE) * _ID_SIZE


def opened(folder: Path, size: int) -> int:
    """Open the file for an image of `size` bytes; return the descriptor."""
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    # of a larger image before, no more than this one has
    os.ftruncate(descriptor, chunk_count(size) * _ID_SIZE)
    return descriptor


def note(descriptor: int, index: int, chunk_id: bytes) -> None:
    """Note a chunk that is stored, from any thread."""
    # what is not noted is stored again, which is no reason to fail
    with suppress(OSError):
        os.pwrite(descriptor, chunk_id, index * _ID_SIZE)


def noted(folder: Path) -> set[bytes]:
    """Return the ids of the chunks that are noted; none, and log a warning, if the file can not be read."""
    try:
        return _read(folder)
    except FileNotFoundError:
        return set()
    except OSError as error:
        # the next backup stores again what is not kept, which is no reason to free no space until then
        log.warning(
            "what a backup has stored that did not end is not kept, as %s fails: %s", folder / NAME, error.strerror
        )
        return set()


def _read(folder: Path) -> set[bytes]:
    content = read_file(folder / NAME, _LARGEST)
    return {content[start : start + _ID_SIZE] for start in range(0, len(content), _ID_SIZE)} - {bytes(_ID_SIZE)}


def leftover(files: ChunkFiles) -> Leftover | None:
    """Return what the chunks take that are noted, as far as that can be told; None if there are none."""
    try:
        chunk_ids = _read(files.directory)
        since = datetime.fromtimestamp((files.directory / NAME).stat().st_mtime, UTC)
    except OSError:
        return None  # there is no store, a backup or a purge has just ended, or nothing is kept as this fails
    found = []
    for chunk_id in chunk_ids:
        with suppress(OSError, ChunkDamageError):
            if file := files.find(chunk_id):
                found.append(files.size(file))
    return Leftover(sum(found), since) if found else None
