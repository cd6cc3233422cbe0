"""The records, states and chunk maps of one directory: its revisions and the chunks of each one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from backy.api import ID_PATTERN
from backy.durable import READ_ONLY, write_file
from backy.errors import DamageError, RecordDamageError, RevisionNotFoundError
from backy.image.chunkmap import ChunkMap, buffer
from backy.repository import sealed, selection
from backy.repository.revision import Record, Revision, State
from backy.text.phrases import local_time

log = logging.getLogger(__name__)

LAST_RECORD = "last.rev"
"""Name of the link to the newest record."""

_RECORD = ".rev"
_STATE = ".state"
_MAP = ".map"


class Records:
    """Reads and writes `<id>.rev`, `<id>.state` and `<id>.map` in a directory. Needs neither `config` nor a plugin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def record_path(self, revision_id: str) -> Path:
        """Return the path of a revision's record."""
        return self.directory / f"{revision_id}{_RECORD}"

    def state_path(self, revision_id: str) -> Path:
        """Return the path of a revision's state."""
        return self.directory / f"{revision_id}{_STATE}"

    def map_path(self, revision_id: str) -> Path:
        """Return the path of a revision's chunk map."""
        return self.directory / f"{revision_id}{_MAP}"

    # records and states -----------------------------------------------------------------------------------------------

    def read(self, revision_id: str) -> Revision:
        """Read one revision; raises RecordDamageError, or FileNotFoundError if there is none."""
        path = self.record_path(revision_id)
        try:
            record = sealed.decode(path.read_bytes(), Record, path.name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RecordDamageError(revision_id, f"{path.name} can not be read: {error.strerror}") from error
        except DamageError as error:
            raise RecordDamageError(revision_id, str(error)) from error
        try:
            return Revision(record, self.read_state(revision_id))
        except DamageError as error:
            path.stat()  # raises FileNotFoundError if the revision was removed since its record was read
            return Revision.without_state(record, f"{error}; the revision is distrusted")

    def read_state(self, revision_id: str) -> State:
        """Read the state of a revision; raises DamageError if it is missing or damaged."""
        path = self.state_path(revision_id)
        try:
            return sealed.decode(path.read_bytes(), State, path.name)
        except FileNotFoundError:
            raise DamageError(f"{path.name} is missing") from None
        except OSError as error:
            raise DamageError(f"{path.name} can not be read: {error.strerror}") from error

    def holds(self, revision_id: str) -> bool:
        """Tell whether the revision with this full id has a record, sound or not, a state or a chunk map."""
        # the pattern comes first: other texts may lead out of the directory
        if not ID_PATTERN.fullmatch(revision_id):
            return False
        paths = self.record_path(revision_id), self.state_path(revision_id), self.map_path(revision_id)
        return any(path.exists() for path in paths)

    def add(self, revision: Revision) -> None:
        """Write the state of a new revision, and then its record, which makes the revision complete."""
        self.write_state(revision)
        # read-only, so that nothing changes it by accident
        write_file(self.record_path(revision.id), sealed.encode(revision.record), READ_ONLY)

    def write_state(self, revision: Revision) -> None:
        """Replace a revision's state."""
        write_file(self.state_path(revision.id), sealed.encode(revision.state), READ_ONLY)

    def survey(self) -> tuple[list[Revision], list[RecordDamageError]]:
        """Read all records; return the sound ones, the oldest first, and the damage of the others."""
        sound: list[Revision] = []
        damaged: list[RecordDamageError] = []
        for path in self.directory.glob(f"*{_RECORD}"):
            # a file that is being written, or the link to the newest record, which some programs copy as a file
            # or a copy that somebody made of a record, whose name is no id
            if not ID_PATTERN.fullmatch(path.name.removesuffix(_RECORD)) or path.is_symlink():
                continue
            try:
                sound.append(self.read(path.name.removesuffix(_RECORD)))
            except FileNotFoundError:
                continue  # forgotten since it was listed
            except RecordDamageError as error:
                damaged.append(error)
        return sorted(sound, key=lambda revision: revision.order), damaged

    def history(self) -> list[Revision]:
        """Return the revisions, the oldest first; damaged records are left out with a warning."""
        sound, damaged = self.survey()
        self._warn(sound, damaged)
        return sound

    def _warn(self, sound: Sequence[Revision], damaged: Sequence[DamageError]) -> None:
        for text in [*map(str, damaged), *(revision.state_problem for revision in sound if revision.state_problem)]:
            log.warning("%s: %s", self.directory, text)

    # the newest one ---------------------------------------------------------------------------------------------------

    def linked(self) -> str | None:
        """Return the id that `last.rev` names; None if it is missing or no link."""
        try:
            return (self.directory / LAST_RECORD).readlink().name.removesuffix(_RECORD)
        except OSError:
            return None

    def doubt(self, sound: Sequence[Revision], damaged: Sequence[RecordDamageError]) -> DamageError | None:
        """Return why nobody can tell which revision is the newest; None if it is the last one of `sound`."""
        if not damaged:
            return None
        linked = self.linked()
        # the order of a damaged record is not known: only the link tells whether it is the newest one
        if sound and linked == sound[-1].id:
            return None
        if linked in {error.revision_id for error in damaged}:
            what = f"the newest record {linked} is damaged"
        else:
            what = f"the record {damaged[0].revision_id} is damaged, and 'last.rev' does not tell if it is the newest"
        if not sound:
            return DamageError(f"{what}; there is no other")
        older = sound[-1]
        when = local_time(older.timestamp, zone=True)
        return DamageError(f"{what}; -r {older.id} restores the state of {when}")

    def select(self, specification: str) -> Revision:
        """Return the revision that SPEC names.

        Raises:
            RevisionNotFoundError: there is none.
            DamageError: its record is damaged; or SPEC is no full id, and the newest record is damaged.
        """
        sound, damaged = self.survey()
        self._warn(sound, damaged)
        for error in damaged:
            if error.revision_id == specification:
                raise error
        # 'last', a number or a tag may mean the damaged one
        doubt = self.doubt(sound, damaged)
        if doubt is not None and all(revision.id != specification for revision in sound):
            raise doubt
        return selection.select(sound, specification)

    def current(self, revision: Revision) -> Revision:
        """Read a revision again, as another command may have changed it.

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
        """Read a revision's chunk map.

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

    def orphans(self) -> set[str]:
        """Return the ids of maps and states without a record, sound or not."""
        # the record goes first when a revision is removed, and comes last when one is made
        states = (path for path in self.directory.glob(f"*{_STATE}") if not path.name.startswith("."))
        known = {path.stem for path in self.directory.glob(f"*{_RECORD}")}
        found = {path.stem for path in (*self.maps(), *states)} - known
        # files that other people made are none of ours
        return {revision_id for revision_id in found if ID_PATTERN.fullmatch(revision_id)}
