"""The records and chunk maps of one directory: what revisions there are, and what each one consists of."""

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
        """Return where a revision's record lies."""
        return self.directory / f"{revision_id}{_RECORD}"

    def map_path(self, revision_id: str) -> Path:
        """Return where a revision's chunk map lies."""
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
        """Tell whether there is a record, sound or not, or a chunk map of a revision, named by its full id."""
        # the pattern comes first: anything else might lead out of the directory
        return ID_PATTERN.fullmatch(revision_id) is not None and any(
            path.exists() for path in (self.record_path(revision_id), self.map_path(revision_id))
        )

    def write(self, revision: Revision) -> None:
        """Replace a revision's record."""
        # nothing changes a complete record by accident; that of a running backup is replaced at its end
        mode = READ_ONLY if revision.complete else 0o640
        write_file(self.record_path(revision.id), revisions.encode(revision), mode)

    def survey(self) -> tuple[list[Revision], list[DamageError]]:
        """Read all records: return the sound ones, complete or not, in order of time, and the damage of the others."""
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
        """Find the complete revision that SPEC stands for; raises RevisionNotFoundError."""
        return revisions.select(self.history(), specification)

    def current(self, revision: Revision) -> Revision:
        """Read the record of a revision once more: it may have been converted or forgotten since.

        Raises:
            RevisionNotFoundError: somebody forgot it.
        """
        try:
            return self.read(revision.id)
        except FileNotFoundError:
            raise RevisionNotFoundError(f"revision {revision.id} was forgotten meanwhile") from None

    # maps -------------------------------------------------------------------------------------------------------------

    def write_map(self, revision_id: str, chunks: ChunkMap) -> str:
        """Write a revision's chunk map and return its digest for the record."""
        write_file(self.map_path(revision_id), chunks.encode())
        return chunks.digest

    def read_map(self, revision: Revision) -> ChunkMap:
        """Read a complete revision's chunk map.

        Raises:
            DamageError: it is missing, damaged, or not the one that the record names.
        """
        path = self.map_path(revision.id)
        chunks = self.load_map(path)
        # a map may be sound and yet another revision's: somebody copied or renamed it
        if chunks.digest != revision.map_digest or chunks.size != revision.size:
            raise DamageError(f"{path} is not the chunk map that {revision.id}{_RECORD} names")
        return chunks

    @staticmethod
    def load_map(path: Path) -> ChunkMap:
        """Read any chunk map; raises DamageError if it is missing, unreadable or damaged."""
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
        """Yield the path of every chunk map, that of revisions with damaged records included."""
        return (path for path in self.directory.glob(f"*{_MAP}") if not path.name.startswith("."))
