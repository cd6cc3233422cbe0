"""The records and chunk maps of one directory: its revisions and the chunks of each one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from backy.api import ID_PATTERN
from backy.durable import READ_ONLY, write_file
from backy.errors import DamageError, RevisionNotFoundError
from backy.image.chunkmap import ChunkMap, buffer
from backy.repository import revision as revisions
from backy.repository.revision import Revision

log = logging.getLogger(__name__)

_RECORD = ".rev"
_MAP = ".map"


class Records:
    """Reads and writes `<id>.rev` and `<id>.map` in a directory. Needs neither its `config` nor a plugin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def record_path(self, revision_id: str) -> Path:
        """Return the path of a revision's record."""
        return self.directory / f"{revision_id}{_RECORD}"

    def map_path(self, revision_id: str) -> Path:
        """Return the path of a revision's chunk map."""
        return self.directory / f"{revision_id}{_MAP}"

    # records ----------------------------------------------------------------------------------------------------------

    def read(self, revision_id: str) -> Revision:
        """Read one record; raises DamageError, or FileNotFoundError if there is none."""
        path = self.record_path(revision_id)
        try:
            return revisions.decode(path.read_bytes(), revision_id)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise DamageError(f"{path.name} can not be read: {error.strerror}") from error

    def holds(self, revision_id: str) -> bool:
        """Tell whether the revision with this full id has a record, sound or not, or a chunk map."""
        # the pattern comes first: other texts may lead out of the directory
        if not ID_PATTERN.fullmatch(revision_id):
            return False
        return self.record_path(revision_id).exists() or self.map_path(revision_id).exists()

    def write(self, revision: Revision) -> None:
        """Replace a revision's record."""
        # read-only, so that nothing changes a complete record by accident
        mode = READ_ONLY if revision.complete else 0o640
        write_file(self.record_path(revision.id), revisions.encode(revision), mode)

    def survey(self) -> tuple[list[Revision], list[DamageError]]:
        """Read all records; return the sound ones in order of time, complete or not, and the damage of the others."""
        sound: list[Revision] = []
        damaged: list[DamageError] = []
        for path in self.directory.glob(f"*{_RECORD}"):
            if path.name.startswith(".") or path.is_symlink():
                continue  # a file that is being written, or the link to the newest revision
            try:
                sound.append(self.read(path.name.removesuffix(_RECORD)))
            except FileNotFoundError:
                continue  # forgotten since it was listed
            except DamageError as error:
                damaged.append(error)
        return sorted(sound, key=lambda revision: (revision.timestamp, revision.id)), damaged

    def history(self) -> list[Revision]:
        """Return the complete revisions in order of time; damaged records are left out with a warning."""
        sound, damaged = self.survey()
        for error in damaged:
            log.warning("%s: %s", self.directory, error)
        return [revision for revision in sound if revision.complete]

    def select(self, specification: str) -> Revision:
        """Return the complete revision that SPEC names; raises RevisionNotFoundError."""
        return revisions.select(self.history(), specification)

    def current(self, revision: Revision) -> Revision:
        """Read the record of a revision again, as another command may have changed it.

        Raises:
            RevisionNotFoundError: somebody forgot the revision.
            DamageError: its record is damaged.
        """
        try:
            return self.read(revision.id)
        except FileNotFoundError:
            raise RevisionNotFoundError(f"revision {revision.id} was forgotten meanwhile") from None

    # maps -------------------------------------------------------------------------------------------------------------

    def write_map(self, revision_id: str, chunks: ChunkMap) -> str:
        """Write a revision's chunk map; return its digest, which the record needs."""
        write_file(self.map_path(revision_id), chunks.encode())
        return chunks.digest

    def read_map(self, revision: Revision) -> ChunkMap:
        """Read a complete revision's chunk map.

        Raises:
            DamageError: it is missing, damaged, or not the one that the record names.
        """
        path = self.map_path(revision.id)
        chunks = self.load_map(path)
        # a sound map may belong to another revision: somebody copied or renamed it
        if chunks.digest != revision.map_digest or chunks.size != revision.size:
            raise DamageError(f"{path} is not the chunk map that {revision.id}{_RECORD} names")
        return chunks

    @staticmethod
    def load_map(path: Path) -> ChunkMap:
        """Read the chunk map at `path`; raises DamageError if it is missing, unreadable or damaged."""
        try:
            with path.open("rb") as stream:
                content = buffer(os.fstat(stream.fileno()).st_size)
                stream.readinto(content)
            return ChunkMap.decode(content)
        except FileNotFoundError:
            raise DamageError(f"{path} is missing: revision {path.stem} can not be read") from None
        except OSError as error:
            raise DamageError(f"{path} can not be read: {error.strerror}") from error
        except DamageError as error:
            raise DamageError(f"{path}: {error}") from error

    def maps(self) -> Iterator[Path]:
        """Yield the path of every chunk map, also of revisions whose record is damaged."""
        # a name that begins with a dot is a file that is being written
        return (path for path in self.directory.glob(f"*{_MAP}") if not path.name.startswith("."))
