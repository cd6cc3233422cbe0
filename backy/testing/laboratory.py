"""A repository for crashes, and a check of the promises that hold after each of them.

A laboratory knows the image of each revision that it made, and the promise about it: the revision is there, it is gone,
or, while a command runs, either. `check` reads back each revision that must be there, byte for byte, makes the next
backup, and looks for files that should not have been left behind.
"""

import random
import shutil
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from backy.answers.replay import findings
from backy.api import CHUNK_SIZE, PAGE_SIZE, SourceError, identify
from backy.backup.backup import Backup
from backy.backup.transfer import reliable
from backy.durable import TEMPORARY_SUFFIX
from backy.errors import BackyError
from backy.groups.forget import forget
from backy.plugins.events import Events
from backy.repository.journal import facts_of
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.retention.purge import purge
from backy.system.clocks import boot_id
from backy.testing.memory import MemoryImage, MemoryRepository
from backy.testing.recording import Fault, Recording, record
from backy.testing.tree import Tree

Promise = Literal["kept", "open", "gone"]
Digest = tuple[int, list[bytes]]
KINDS = 4
"""Number of different pages in a chunk of `patterned`."""


class Unfinished(MemoryImage):
    """An image whose last byte can not be read."""

    def pread(self, offset: int, length: int) -> bytes:
        """Return bytes that are not the last ones."""
        if offset + length >= self.size:
            raise SourceError("the source went away at the end")
        return super().pread(offset, length)


class BrokenPromiseError(AssertionError):
    """A promise about the repository does not hold; the text says which."""


def patterned(first: int, changed: int | None = None) -> bytes:
    """Return a chunk of 4 random pages that repeat. The page with the number `changed` is a different one."""
    # It compresses well, by zlib as well, which looks no further back than 32 KiB: so thousands of trials stay fast.
    pages = [random.Random(first + kind).randbytes(PAGE_SIZE) for kind in range(KINDS)]  # noqa: S311  # no secret
    data = bytearray(b"".join(pages) * (CHUNK_SIZE // PAGE_SIZE // KINDS))
    if changed is not None:
        page = random.Random(first + 1000 + changed).randbytes(PAGE_SIZE)  # noqa: S311  # likewise
        data[changed * PAGE_SIZE : (changed + 1) * PAGE_SIZE] = page
    return bytes(data)


@dataclass
class Laboratory:
    """A repository in `directory`, and an image in memory as its source."""

    directory: Path
    clock: Callable[[], datetime]
    storage: dict[str, Any]
    """The section `storage` of the repository."""
    content: bytes = b""
    """The image as it is now."""
    folder: Path | None = None
    """The folder that is recorded, which has `directory` in it; None for `directory` alone."""
    blobs: MutableMapping[str, bytes] | None = None
    """What the storage keeps elsewhere, by name."""
    expected: dict[str, Digest] = field(default_factory=dict)
    """The digest of the image of each revision, by revision_id."""
    recording: Recording | None = None
    """The recording that runs now, if any."""
    promises: list[tuple[int, Promise, str]] = field(default_factory=list)
    """Promises about revisions: after how many operations of the newest recording, the promise, the revision_id."""

    @property
    def recorded(self) -> Path:
        """The folder that is recorded."""
        return self.folder or self.directory

    def initialize(self) -> None:
        """Make the repository."""
        MemoryRepository.make(self.directory, self.storage)

    def open(self) -> MemoryRepository:
        """Open the repository as a command does, with the image as its source."""
        # Opened anew for every action: nothing that an object remembers may hide what is on the disk.
        repository = MemoryRepository.open(self.directory)
        repository.memory.content = self.content
        return repository

    # actions, which can be recorded -----------------------------------------------------------------------------------

    def backup(self) -> Revision:
        """Make a revision."""
        return self.back_up(self.open())

    def back_up(self, repository: Repository) -> Revision:
        """Make a revision in a repository that the caller has opened."""
        revision = Backup(repository, ("test",), Events(), clock=self.clock).run()
        self.expected[revision.id] = self.digest()
        # A revision with a boot id did not wait for the disk, so a power loss may take it away.
        self.promise("open" if revision.state.unsynced_boot else "kept", revision.id)
        return revision

    def fail(self) -> None:
        """Begin a revision that fails at the end of the image, after nearly all of it was written."""
        repository = self.open()
        repository.memory.wrap = lambda image: Unfinished(image.content, image.hint)
        with suppress(SourceError):
            Backup(repository, ("failed",), clock=self.clock).run()

    def forget(self, specification: str) -> None:
        """Put a revision into the trash."""
        repository = self.open()
        revision_id = repository.records.select(specification).id
        # While it is being removed, a crash may leave it or not.
        self.promise("open", revision_id)
        forget(repository, [revision_id], "a test", force=True, events=Events())
        self.promise("gone", revision_id)

    def purge(self) -> None:
        """Empty the trash, and free the space that no revision needs."""
        purge(self.open(), Events(), everything=True)

    def record(self, action: Callable[[], object], fault: Fault | None = None) -> Recording:
        """Run an action and record every call that changes the directory; `fault` makes a call fail.

        Raises:
            OSError, BackyError: the action failed without a fault.
        """
        with record(self.recorded, fault, self.blobs) as self.recording:
            try:
                action()
            # A storage elsewhere says in its own words that a change has failed.
            except (OSError, BackyError):
                if fault is None:
                    raise
        recording, self.recording = self.recording, None
        return recording

    def put(self, tree: Tree) -> None:
        """Replace the recorded folder, and what is kept elsewhere, by those of `tree`."""
        shutil.rmtree(self.recorded, ignore_errors=True)
        tree.write(self.recorded)
        if self.blobs is not None:
            self.blobs.clear()
            self.blobs.update(tree.blobs)

    # promises ---------------------------------------------------------------------------------------------------------

    def promise(self, kind: Promise, revision_id: str) -> None:
        """Store a promise about a revision that holds from now on."""
        self.promises.append((len(self.recording.operations) if self.recording else 0, kind, revision_id))

    def state(self, after: int) -> dict[str, Promise]:
        """Return the promise about each revision after so many operations."""
        # Later promises about a revision replace earlier ones.
        return {revision_id: kind for when, kind, revision_id in self.promises if when <= after}

    def check(self, state: dict[str, Promise]) -> None:
        """Check that all promises hold, and that the next backup and purge work.

        Raises:
            BrokenPromiseError: a promise does not hold. Any other error is a failure too.
        """
        repository = self.open()
        self.nothing_tampered_with(repository)
        history = {revision.id: revision for revision in repository.records.history()}
        kept = {revision_id for revision_id, kind in state.items() if kind == "kept"}
        _demand(kept <= history.keys(), "a complete revision is lost")
        gone = {revision_id for revision_id, kind in state.items() if kind == "gone"}
        _demand(not gone & history.keys(), "a forgotten revision is there again")
        trusted = kept | {revision_id for revision_id, revision in history.items() if reliable(revision, boot_id())}
        self.read_back(repository, trusted)

        revision = Backup(repository, ("next",), Events(), clock=self.clock).run()
        _demand(all(revision.seq > other.seq for other in history.values()), "a number is used again")
        self.expected[revision.id] = self.digest()
        purge(repository, Events())
        self.read_back(repository, trusted | {revision.id})
        self.nothing_left_over()
        self.nothing_tampered_with(repository)

    def read_back(self, repository: Repository, revision_ids: set[str]) -> None:
        """Read revisions from end to end, and a chunk once where it is stored once for several of them."""
        # Crashes are tried by the hundred, and revisions differ by little.
        known = dict[object, bytes]()
        for revision_id in revision_ids:
            revision = repository.records.read(revision_id)
            shared = repository.storage(revision.storage).shares_chunks
            found = []
            with repository.image(revision) as image:
                for index in range(len(image.chunks)):
                    stored = image.chunk_id(index), image.chunks.length(index)
                    key = (revision.storage, *stored) if shared else (revision_id, index)
                    if key not in known:
                        known[key] = identify(image.chunk(index))
                    found.append(known[key])
            _demand((image.size, found) == self.expected[revision_id], f"revision {revision_id} has another content")

    def nothing_tampered_with(self, repository: Repository) -> None:
        """Check that nothing contradicts the journal: a crash must not look as if somebody had changed something."""
        found = findings(repository.records.journal.read(), facts_of(self.directory))
        _demand(not found, "; ".join(found))

    def nothing_left_over(self) -> None:
        """Check that no temporary file, and no map or state without a record, is left, and that `last.rev` is right."""
        names = [path.name for path in self.directory.rglob("*")]
        found = [name for name in names if f".{name}".endswith((TEMPORARY_SUFFIX, ".running"))]
        _demand(not found, f"left behind: {found}")
        maps, states = ({path.stem for path in self.directory.glob(f"*.{suffix}")} for suffix in ("map", "state"))
        records = {path.stem for path in self.directory.glob("*.rev") if not path.is_symlink()}
        _demand(maps == records, f"maps {sorted(maps)}, but records {sorted(records)}")
        _demand(states == records, f"states {sorted(states)}, but records {sorted(records)}")
        newest = self.open().records.history()[-1].id
        _demand((self.directory / "last.rev").readlink() == Path(f"{newest}.rev"), "last.rev leads elsewhere")

    def digest(self) -> Digest:
        """Return the size of the image as it is now, and the BLAKE3 of each of its chunks."""
        image = self.content
        return len(image), [identify(image[at : at + CHUNK_SIZE]) for at in range(0, len(image), CHUNK_SIZE)]


def _demand(true: bool, otherwise: str) -> None:
    if not true:
        raise BrokenPromiseError(otherwise)
