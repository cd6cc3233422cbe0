"""Reads what is left of a damaged revision, and lists what can not be read."""

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from backy.api import CHUNK_SIZE
from backy.durable import naming, pwrite_all
from backy.errors import BackyError, ConfigError, DamageError
from backy.image.stored import StoredImage
from backy.repository.repository import Repository
from backy.restore.target import open_file
from backy.text.phrases import counted

_NOT_TRIED, _READ, _BAD = "?", "+", "-"
"""Status of a range, from section "Mapfile structure" of GNU ddrescue's manual."""


class SalvagedImage(StoredImage):
    """A stored image whose damaged chunks read as zeroes and are remembered."""

    def __init__(self, image: StoredImage) -> None:
        super().__init__(image.chunks, image.reader)
        self.damaged: dict[int, str] = {}
        """What is wrong with a chunk, by index."""

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`, or zeroes of its length if it can not be had."""
        try:
            return super().chunk(index)
        # whatever it is: the other chunks are worth having
        except (BackyError, OSError) as error:
            # The text only: the error holds the evidence in memory.
            self.damaged[index] = str(error)
            return bytes(self.chunks.length(index))


@contextmanager
def salvaged(
    image: StoredImage, path: Path | None, target: str, repository: Repository, *, force: bool = False
) -> Iterator[StoredImage]:
    """Yield an image whose damaged chunks read as zeroes; write to `path` which ones these were.

    Args:
        image: The stored image.
        path: Path of the list; None yields `image` itself.
        target: What the image is restored to, which `path` must not be.
        repository: The repository, in which `path` must not lie.
        force: Whether root may replace a file of another user by the list.

    Raises:
        ConfigError: `path` lies inside of the repository, is no file, or is the target.
        TargetError: the file at `path` belongs to somebody else or is in use.
        PermissionError: `path` is a symbolic link of somebody else.
        DamageError: at the end, if a chunk could not be read.
    """
    if path is None:
        yield image
        return
    _check(path, target, repository)
    # An older list is replaced without force: a restore that is resumed goes on with it.
    with open_file(path, existing=True, force=force) as descriptor:
        # Written before anything is read: an interrupted restore must not leave a list that says more than it knows.
        _replace(descriptor, mapfile(image.size, (), _NOT_TRIED), path)
        found = SalvagedImage(image)
        yield found
        _replace(descriptor, mapfile(image.size, found.damaged, _READ), path)
    if found.damaged:
        first = min(found.damaged)
        raise DamageError(
            f"{len(found.damaged)} of {counted(len(image.chunks), 'chunk')} could not be read, zeroes are in their "
            f"place, see {path}; the first is at byte {first * CHUNK_SIZE}: {found.damaged[first]}"
        )


def _replace(descriptor: int, content: str, path: Path) -> None:
    """Replace all that an open file holds."""
    with naming(path):
        os.ftruncate(descriptor, 0)
        pwrite_all(descriptor, content.encode(), 0)


def _check(path: Path, target: str, repository: Repository) -> None:
    """Raise ConfigError if the list would replace something else."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file: the list of what could be read has to be one of its own")
    # The target may not exist yet, so that there is no file to compare.
    if path.resolve() == Path(target).resolve() or (path.exists() and Path(target).exists() and path.samefile(target)):
        raise ConfigError(f"{path} is the target: the list of what could be read has to be a file of its own")
    if path.resolve().is_relative_to(repository.directory.resolve()):
        raise ConfigError(f"{path} lies inside of the repository: write the list to another place")


def mapfile(size: int, damaged: Container[int], other: str) -> str:
    """Return ranges of bytes in the format of GNU ddrescue: damaged chunks as bad, all others with status `other`."""
    lines = ["# Mapfile. Created by backy", "# current_pos  current_status  current_pass"]
    lines += [f"0x{0:08X}     {other}               1", "#      pos        size  status"]
    for status, group in groupby(range(-(-size // CHUNK_SIZE)), lambda index: _BAD if index in damaged else other):
        chunks = list(group)
        start, end = chunks[0] * CHUNK_SIZE, min((chunks[-1] + 1) * CHUNK_SIZE, size)
        lines.append(f"0x{start:08X}  0x{end - start:08X}  {status}")
    return "\n".join(lines) + "\n"
