"""The records, states and chunk maps of one directory: its revisions and the chunks of each one."""

import logging
import mmap
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backy.api import ID_PATTERN
from backy.durable import WrongFileError, closed_at_end, names_in, open_sized, read_file, sync_folder, write_file
from backy.errors import DamageError, RecordDamageError, RevisionNotFoundError, UnreadError
from backy.image.stored import LARGEST_MAP, ChunkMap, buffer
from backy.repository import sealed
from backy.repository.journal import JOURNAL, Fact, Journal, digest, doubted_since, fact_of
from backy.repository.revision import Record, Revision, State, select
from backy.system.locking import RECORDS_LOCK, exclusive
from backy.text.phrases import local_time

log = logging.getLogger(__name__)

LAST = "last"
LAST_RECORD = "last.rev"
"""Name of the link to the newest record."""

RECORD = ".rev"
STATE = ".state"
MAP = ".map"
ATTACHMENTS = ".attachments"
DRILL, EVIDENCE = ".drill", ".drill.log"
"""Ends of the names of a revision's files, which begin with its id."""

Survey = tuple[list[Revision], list[RecordDamageError]]
"""The sound records, the oldest first, and the damage of the others."""


class Records:
    """Reads and writes `<id>.rev`, `<id>.state` and `<id>.map` in a directory. Needs neither `config` nor a plugin."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = Journal(directory)
        """What was done to them; every change of a record or a state goes through it."""
        self._recording = False

    def record_path(self, revision_id: str) -> Path:
        """Return the path of a revision's record."""
        return self.directory / f"{revision_id}{RECORD}"

    def state_path(self, revision_id: str) -> Path:
        """Return the path of a revision's state."""
        return self.directory / f"{revision_id}{STATE}"

    def map_path(self, revision_id: str) -> Path:
        """Return the path of a revision's chunk map."""
        return self.directory / f"{revision_id}{MAP}"

    def attachments_path(self, revision_id: str) -> Path:
        """Return the path of a revision's attachments."""
        return self.directory / f"{revision_id}{ATTACHMENTS}"

    def drill_paths(self, revision_id: str) -> tuple[Path, Path]:
        """Return the paths of the result of a revision's last drill, and of what that has shown."""
        return self.directory / f"{revision_id}{DRILL}", self.directory / f"{revision_id}{EVIDENCE}"

    @contextmanager
    def recording(self, *, wait: bool = True) -> Iterator[None]:
        """Hold `.records` alone, as all do while they change records, states or links; again if it is held already.

        Raises RepositoryBusyError if another command holds it, and `wait` is false.
        """
        if self._recording:
            yield
            return
        with exclusive(self.directory, RECORDS_LOCK, wait=wait):
            self._recording = True
            try:
                yield
            finally:
                self._recording = False

    # records and states -----------------------------------------------------------------------------------------------

    def read(self, revision_id: str) -> Revision:
        """Read one revision; raises RecordDamageError, or FileNotFoundError if there is none."""
        try:
            record = self._document(f"{revision_id}{RECORD}", Record)
        except DamageError as error:
            raise RecordDamageError(revision_id, error) from error
        try:
            return Revision.of(record, self.read_state(revision_id))
        except DamageError as error:
            self.record_path(revision_id).stat()  # raises FileNotFoundError if the revision was removed since
            try:
                since = doubted_since(self.journal.read(having=revision_id.encode()), revision_id)
            except OSError as unread:
                return Revision.without_state(record, _unreadable(f"{error}, and '{JOURNAL}'", unread))
            return Revision.without_state(record, error, since)

    def read_state(self, revision_id: str) -> State:
        """Read the state of a revision; raises DamageError if it is missing or damaged."""
        name = f"{revision_id}{STATE}"
        try:
            return self._document(name, State)
        except FileNotFoundError:
            raise DamageError(f"{name} is missing") from None

    def states(self) -> dict[str, State | None]:
        """Return the states of all revisions by id, None for one that is lost; no record is read."""
        found: dict[str, State | None] = dict.fromkeys(self.ids())
        for revision_id in found:
            with suppress(DamageError):
                found[revision_id] = self.read_state(revision_id)
        return found

    def _document(self, name: str, kind: type[sealed.Content]) -> sealed.Content:
        """Read a record or a state; raises DamageError, or FileNotFoundError if there is none."""
        # no Path: there may be very many
        try:
            return sealed.decode(read_file(f"{self.directory}/{name}", sealed.LARGEST), kind, name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(name, error) from error

    def holds(self, revision_id: str) -> bool:
        """Tell whether the revision with this full id has a record, sound or not, a state or a chunk map."""
        paths = self.record_path(revision_id), self.state_path(revision_id), self.map_path(revision_id)
        # the pattern comes first: other texts may lead out of the directory
        return bool(ID_PATTERN.fullmatch(revision_id)) and any(path.exists() for path in paths)

    def has(self, revision: Revision) -> bool:
        """Tell whether a revision is still there: others may forget it at any time, even beside a backup."""
        return self.record_path(revision.id).exists()

    def add(self, revision: Revision) -> None:
        """Write the state of a new revision, and then its record, which makes the revision complete."""
        self.add_files("backup", revision.id, sealed.encode(revision.record), sealed.encode(revision.state))

    def add_files(self, act: str, revision_id: str, record: bytes, state: bytes) -> None:
        """Write the files of a revision: the state first, as the record makes the revision complete.

        An empty state stands for one that is lost.
        """
        with self.journal.act(act, revision_id, Fact(digest(record), digest(state) if state else None)):
            if state:
                write_file(self.state_path(revision_id), state)
            else:
                self.state_path(revision_id).unlink(missing_ok=True)
            # read-only, so that nothing changes it by accident
            write_file(self.record_path(revision_id), record)

    def write_state(self, revision: Revision, act: str = "change", note: str | None = None) -> None:
        """Replace a revision's state; `act` and `note` are for the journal.

        Raises:
            UnreadError: it is there and could not be read.
        """
        # what it says, such as the tags in force, would be lost
        _require_read(revision)
        content = sealed.encode(revision.state)
        fact = Fact(fact_of(self.directory, revision.id).record, digest(content))
        if fact.unread:
            raise UnreadError(f"{revision.id}{RECORD} {fact.record}, so its state is not replaced")
        with self.journal.act(act, revision.id, fact, note):
            write_file(self.state_path(revision.id), content)

    def change(self, revision: Revision, act: str = "change", note: str | None = None, **state: Any) -> Revision:  # noqa: ANN401  # members of a state
        """Replace members of a revision's state as it is now; return it. Raises RevisionNotFoundError if it is gone."""
        # the caller went by what it is without a state, such as the tags at birth
        _require_read(revision)
        with self.recording():
            # another command may have changed other members since it was read, or put it into the trash
            current = self._again(revision)
            changed = current.changed(**state)
            # a state that says the same already needs no write, nor the fsyncs of one
            if changed.state != current.state or current.state_problem:
                self.write_state(changed, act, note)
        return changed

    def remove(self, revision_id: str, act: str = "remove", note: str | None = None) -> None:
        """Remove a record: from then on there is no revision, but a trace of the rest, by which it is cleaned up."""
        record = self.record_path(revision_id)
        if record.exists():
            with self.journal.act(act, revision_id, Fact(), note):
                record.unlink()
                sync_folder(self.directory)

    def survey(self, names: Iterable[str] | None = None, *, trash: bool = False) -> Survey:
        """Read all records; return the sound ones, the oldest first, and the damage of the others.

        Half groups are left out, and the trash, unless `trash` is true. `names` are those in the repository, if known.
        """
        sound: list[Revision] = []
        damaged: list[RecordDamageError] = []
        for revision_id in self.ids() if names is None else ids_in(names, RECORD):
            try:
                sound.append(self.read(revision_id))
            except FileNotFoundError:
                continue  # forgotten since it was listed
            except RecordDamageError as error:
                damaged.append(error)
        used = [one for one in sound if not (one.group and one.group.is_half(self.directory.parent))]
        seen = (one for one in used if trash or not one.state.forgotten)
        return sorted(seen, key=lambda revision: revision.order), damaged

    def ids(self) -> set[str]:
        """Return the ids of all revisions that have a record, sound or not."""
        return ids_in(self._names(), RECORD)

    def _names(self) -> list[str]:
        return names_in(self.directory) if self.directory.exists() else []

    def history(self, *, trash: bool = False) -> list[Revision]:
        """Return the revisions as `survey` does; damaged records are left out with a warning."""
        sound, damaged = self.survey(trash=trash)
        self._warn(sound, damaged)
        return sound

    def _warn(self, sound: Sequence[Revision], damaged: Sequence[DamageError]) -> None:
        for text in [*map(str, damaged), *(revision.state_problem for revision in sound if revision.state_problem)]:
            log.warning("%s: %s", self.directory, text)

    # the newest one ---------------------------------------------------------------------------------------------------

    def linked(self) -> str | None:
        """Return the id that `last.rev` names; None if it is missing or no link."""
        try:
            return (self.directory / LAST_RECORD).readlink().name.removesuffix(RECORD)
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
        what = f"the newest record {linked} is damaged"
        if linked not in {error.revision_id for error in damaged}:
            what = f"the record {damaged[0].revision_id} is damaged, and 'last.rev' does not tell if it is the newest"
        return DamageError(f"{what}; {instead(sound[-1] if sound else None)}")

    def select(self, specification: str, surveyed: Survey | None = None) -> Revision:
        """Return the revision that SPEC names, of those that a survey with the trash has found.

        Raises:
            RevisionNotFoundError: there is none.
            DamageError: its record is damaged; or SPEC is no full id, and the newest record is damaged.
        """
        everything, damaged = surveyed or self.survey(trash=True)
        sound = [revision for revision in everything if not revision.state.forgotten]
        if not surveyed:
            self._warn(sound, damaged)
        for error in damaged:
            if error.revision_id == specification:
                raise error
        if any(revision.id == specification for revision in everything if revision.state.forgotten):
            raise RevisionNotFoundError(f"it is in the trash; 'backy undelete {specification}' brings it back")
        # 'last', a number or a tag may mean the damaged one
        doubt = self.doubt(sound, damaged)
        if doubt is not None and all(revision.id != specification for revision in sound):
            raise doubt
        return select(sound, specification)

    def select_image(self, specification: str) -> Revision:
        """Return the revision that SPEC names, to use its image; log a warning if nobody should rely on it.

        Raises:
            RevisionNotFoundError: there is none.
            DamageError: as for `select`; or the source had another image, and SPEC is no full id.
        """
        revision = self.select(specification)
        # who says 'last' or 'daily' wants the machine as it was, and must get neither another image nor another day
        if revision.state.wrong and specification != revision.id:
            advice = f"{revision.doubt}; -r {revision.id} takes it as it is"
            if older := [one for one in self.survey()[0] if one.order < revision.order and not one.doubtful]:
                advice += f", -r {older[-1].id} the state of {local_time(older[-1].timestamp, zone=True)}"
            raise DamageError(advice)
        if revision.doubtful:
            log.warning("%s", revision.doubt)
        if revision.consistency == "none":
            log.warning("revision %s is torn: the source was written to while it was read", revision.id)
        return revision

    def current(self, revision: Revision) -> Revision:
        """Read a revision again, as another command may have changed it.

        Raises:
            RevisionNotFoundError: somebody forgot the revision.
            DamageError: its record is damaged.
        """
        now = self._again(revision)
        # one that was in the trash before is looked at by those who look there
        if now.state.forgotten and not revision.state.forgotten:
            raise RevisionNotFoundError(f"revision {revision.id} was forgotten meanwhile")
        return now

    def _again(self, revision: Revision) -> Revision:
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
        chunks = self.load_map(revision.id)
        # a sound map may belong to another revision: somebody copied or renamed it
        if chunks.digest != revision.map_digest or chunks.size != revision.size:
            raise DamageError(f"{self.map_path(revision.id)} is not the chunk map that {revision.id}{RECORD} names")
        return chunks

    def has_map(self, revision: Revision) -> bool:
        """Tell whether the chunk map of a revision is there, and sound as far as it can be read."""
        try:
            self.read_map(revision)
        except DamageError as error:
            return isinstance(error, UnreadError)  # it may be sound on another day
        return True

    def load_map(self, name: str) -> ChunkMap:
        """Read the chunk map of a revision or another name; raises DamageError if it is missing or damaged."""
        path = f"{self.directory}/{name}{MAP}"
        try:
            return ChunkMap.decode(_map_content(path))
        except FileNotFoundError:
            raise DamageError(f"{path} is missing: revision {name} can not be read") from None
        except OSError as error:
            raise _unreadable(path, error) from error
        except DamageError as error:
            raise DamageError(f"{path}: {error}") from error

    def mapped(self) -> set[str]:
        """Return the names, without suffix, of all chunk maps that are there or should be."""
        names = self._names()
        # also names that are no ids: who has renamed a map may still need its chunks
        maps = {name.removesuffix(MAP) for name in names if name.endswith(MAP) and not name.startswith(".")}
        return maps | ids_in(names, RECORD)


def instead(older: Revision | None) -> str:
    """Return what to restore in place of the newest revision, of which nobody knows enough; None if there is none."""
    when = local_time(older.timestamp, zone=True) if older else ""
    return f"-r {older.id} restores the state of {when}" if older else "there is no other"


def orphans(names: Collection[str]) -> set[str]:
    """Return the ids of a revision's other files without a record, sound or not; `names` are in the repository."""
    # the record goes first when a revision is removed, and comes last when one is made
    return set().union(*(ids_in(names, suffix) for suffix in (MAP, STATE, ATTACHMENTS))) - ids_in(names, RECORD)


def ids_in(names: Iterable[str], suffix: str) -> set[str]:
    """Return the ids of the revisions that have a file with this end among `names`."""
    # no ids are the names of files that are being written, of `last.rev`, and of copies that somebody made
    return set(filter(ID_PATTERN.fullmatch, [name.removesuffix(suffix) for name in names if name.endswith(suffix)]))


def _require_read(revision: Revision) -> None:
    if revision.unread:
        raise UnreadError(f"{revision.id}{STATE} can not be read now, so it is not replaced")


def _unreadable(name: str, error: OSError) -> DamageError:
    kind = DamageError if isinstance(error, WrongFileError) else UnreadError
    return kind(f"{name} can not be read: {error.strerror}")


def _map_content(path: str) -> bytearray | mmap.mmap:
    """Read the file of a chunk map."""
    descriptor, size = open_sized(path, LARGEST_MAP)
    with closed_at_end(descriptor):
        content = buffer(size)
        view, position = memoryview(content), 0
        while position < size and (count := os.readv(descriptor, [view[position:]])):
            position += count
    return content
