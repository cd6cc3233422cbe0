"""One prefix of a bucket: who it is, its small objects, and the right to change them."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime

from backy.api import ID_PATTERN, Job
from backy.errors import DamageError, StorageError
from backy_storages_s3.cache import SUFFIX, Cache, Known, Memory
from backy_storages_s3.config import S3Config
from backy_storages_s3.index import Index
from backy_storages_s3.lease import Lease, WaitError
from backy_storages_s3.objects import Content, Found, Objects

log = logging.getLogger(__name__)
FORMAT = "backy 3 packs"
MARKER = "store"
OWN = {MARKER, "lease", "condemned", "unpack.py", "restore.py"}
"""Objects that are neither records of the core nor indexes."""
_AT_ONCE = 8
_REMEMBERED = 2**25
"""Bytes of objects that are kept because they are asked for next."""


class Store:
    """What several parts of the storage share. Safe to use from several threads."""

    def __init__(self, objects: Objects, config: S3Config, job: Job, clock: Callable[[], datetime]) -> None:
        self.objects = objects
        self.clock = clock
        # of another time, nothing that is remembered of this one is true
        self.cache = Cache(job.store, f"{config.address} {config.at or ''}".strip())
        self.read_only = config.at is not None
        alone = config.single_writer or self.read_only
        self._lease = None if alone else Lease(objects, self.cache, job.name, clock, self.prove)
        self._lock = threading.RLock()
        self._proven = self._is_listed = False
        self._wait: WaitError | None = None
        self._contents: dict[str, bytes] = {}
        self._in_doubt = False
        """Whether a change has failed, which may have been made all the same."""
        self.committed: set[str] = set()
        """Ids of the revisions whose packs were stored under the lease that is held now."""

    # who it is --------------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        """Return the identity of the store; raises StorageError."""
        memory = self.cache.memory
        # it is proven when the store is first used: by the lease, or by one more request
        if memory.identity and self._lease and not self._proven:
            return memory.identity
        return self._read_identity()

    def _read_identity(self) -> str:
        found = self.objects.get(MARKER)
        if found is None:
            self.cache.forget()
            raise StorageError(f"there is no store at {self.objects.address}, or it lost its object '{MARKER}'")
        form, _, rest = found.content.decode("ascii", "replace").partition("\n")
        identity = rest.removesuffix("\n")
        if form != FORMAT or not ID_PATTERN.fullmatch(identity):
            raise StorageError(f"{self.objects.address}/{MARKER} says {found.content[:100]!r}: no store of '{FORMAT}'")
        self._accept(identity)
        return identity

    def _accept(self, identity: str) -> None:
        memory = self.cache.memory
        if memory.identity not in {"", identity}:
            self.cache.forget()
            # what was begun with the other one ends here
            raise StorageError(f"another store is at {self.objects.address} than before, {identity}: try again")
        self._proven = True
        if not memory.identity:
            memory.identity = identity
            self._remember()

    def _remember(self) -> None:
        # a copy of a repository that can not be written to can be read
        if self.cache.folder.is_dir() and not self.read_only:
            self.cache.save()

    def prove(self) -> None:
        """Make sure that it is the store that it was; raises StorageError."""
        with self._lock:
            if not self._proven:
                self._read_identity()

    def make(self, identity: str) -> bool:
        """Give the store an identity, unless it has one; return whether it got this one."""
        if not self.objects.get(MARKER):
            self.objects.create(MARKER, f"{FORMAT}\n{identity}\n".encode())
        return self._read_identity() == identity

    # the right to change it -------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Be the one who writes.

        Raises:
            StorageError: another one writes, or has written since the objects were listed.
        """
        if self.read_only:
            raise StorageError("nothing is written to what was there at another time: remove the key 'at'")
        with self._lock:
            self._list_once()
            # even if its time is over by now: of what the other one has written nobody has told the core
            if self._wait:
                raise self._wait
            if self._lease:
                self._lease.hold()

    def change(self) -> None:
        """Be the one who writes, and note that something will change."""
        self.hold()
        self.cache.begin()

    # small objects ----------------------------------------------------------------------------------------------------

    def files(self) -> dict[str, Known]:
        """Return the objects beside the packs."""
        with self._lock:
            self._list_once()
            return dict(self.cache.memory.files)

    def list_again(self) -> dict[str, Known]:
        """Return them as they are now, also if another writer has changed them since."""
        with self._lock:
            self._is_listed &= self._wait is None and not self._in_doubt
            if not self._is_listed:
                self._contents.clear()
            return self.files()

    def _list_once(self) -> None:
        if not self._is_listed:
            if not self._try_to_hold() or self.cache.memory.changing or self._in_doubt:
                self._list()
            self._is_listed = True

    def _try_to_hold(self) -> bool:
        """Take the lease, or note who has it; return whether what is remembered is true."""
        self._wait, unbroken = None, False
        try:
            unbroken = self._lease is not None and self.cache.is_possible and self._lease.hold()
        except WaitError as error:
            # to look does no harm
            self._wait = error
        # nobody could have put another store there without the lease
        self._proven |= unbroken
        self.prove()
        return unbroken

    def _list(self) -> None:
        listed = {name: one.etag for name, one in self.objects.list().items() if name not in OWN}
        known = self.cache.memory.files
        unknown = [name for name, etag in listed.items() if name not in known or known[name].etag != etag]
        found = {name: known[name] for name in listed.keys() - set(unknown)}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name, content in zip(unknown, pool.map(self.objects.get, unknown), strict=True):
                if content is not None:
                    found[name] = self._seen(name, content)
        self.cache.memory.files = found
        self._in_doubt = False
        if not self.read_only and not self._wait and self.cache.is_possible:
            self.cache.settle()

    def _seen(self, name: str, found: Found) -> Known:
        if sum(map(len, self._contents.values())) < _REMEMBERED:
            self._contents[name] = found.content
        return Known(found.etag, hashlib.sha256(found.content).hexdigest())

    def get(self, name: str) -> bytes:
        """Return the content of a small object.

        Raises:
            DamageError: it is missing.
            StorageError: it can not be read.
        """
        if (kept := self._contents.pop(name, None)) is not None:
            return kept
        found = self.objects.get(name)
        if found is None:
            raise DamageError(f"{self.objects.address} has no {name}")
        return found.content

    def put(self, name: str, content: Content, *, once: bool = False) -> None:
        """Keep a small object; with `once`, it must not be there with another content."""
        with self._lock:
            self.change()
            digest, known = hashlib.sha256(content).hexdigest(), self.cache.memory.files.get(name)
            # a server that does not know conditions has but one writer, who knows what is there
            other = once and known is not None and known.digest != digest
            with self._doubting():
                etag = None if other else (self.objects.create if once else self.objects.put)(name, content)
            if etag is None:
                raise StorageError(f"{self.objects.address} has another {name} already")
            self._contents.pop(name, None)
            self.cache.memory.files[name] = Known(etag, digest)
            self._settle()

    def remove(self, name: str) -> None:
        """Remove a small object, if it is there."""
        with self._lock:
            if name in self.files() or self._in_doubt:
                self.change()
                with self._doubting():
                    self.objects.delete([name])
                self.cache.memory.files.pop(name, None)
                self._contents.pop(name, None)
                self._settle()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """Believe no list after a change that has failed, until there is a new one."""
        try:
            yield
        except BaseException:
            self._in_doubt = True
            raise

    def _settle(self) -> None:
        if not self._in_doubt:
            self.cache.settle()

    # indexes ----------------------------------------------------------------------------------------------------------

    def index(self, revision_id: str, etag: str | None = None) -> Index:
        """Return the index of a revision, as it was when it had this ETag; None for how it is remembered.

        Raises:
            DamageError: it is missing or damaged.
            StorageError: it can not be read.
        """
        name = revision_id + SUFFIX
        known = self.cache.memory.files.get(name)
        content = self.cache.copy(name) if known and etag in {None, known.etag} else None
        if content is None:
            content = self.get(name)
            if not self.read_only:
                self.cache.keep(name, content)
        try:
            return Index.decode(content)
        except ValueError as error:
            raise DamageError(f"{self.objects.address}/{name}: {error}") from error

    def put_index(self, revision_id: str, index: Index) -> int:
        """Keep the index of a revision; return the size of the object."""
        name, content = revision_id + SUFFIX, index.encode()
        self.cache.keep(name, content)
        self.put(name, content)
        return len(content)

    def indexed(self) -> list[str]:
        """Return the ids of all revisions that have an index, or should have one."""
        return sorted({name.rpartition(".")[0] for name in self.files() if name.endswith((SUFFIX, ".rev"))})

    def indexes_now(self) -> Iterator[Index | None]:
        """Yield all indexes as they are now, for one who only reads; None for one that is lost. Raises StorageError."""
        self.prove()
        before, listed = self.cache.read(), {name: one.etag for name, one in self.objects.list().items()}
        # of what another command does meanwhile nothing can be said
        if not before.changing and before == self.cache.read() and listed.get("lease", "") == before.lease:
            self._compare(before, listed)
        for revision_id in {name.rpartition(".")[0] for name in listed if name.endswith((SUFFIX, ".rev"))}:
            yield self._index_if_there(revision_id, listed.get(revision_id + SUFFIX, ""))

    def _compare(self, memory: Memory, listed: Mapping[str, str]) -> None:
        """Tell of objects that are not as this writer has left them, though nobody else has written since.

        The next command that writes does not believe what is remembered, and puts back what is missing.
        """
        other = sorted(name for name, one in memory.files.items() if listed.get(name) != one.etag)
        if other:
            counted = f"{len(other)} objects of {self.objects.address} were deleted or changed by somebody"
            log.warning("%s, such as %s; the next backup puts back what it can", counted, other[0])
            # who may only read here has told it
            with self._lock, suppress(StorageError):
                self.cache.memory = memory
                self.cache.begin()

    def indexes(self) -> Iterator[tuple[str, Index | None]]:
        """Yield the indexes of all revisions, one after the other; None for one that is lost. Raises StorageError."""
        for revision_id in self.indexed():
            yield revision_id, self._index_if_there(revision_id)

    def _index_if_there(self, revision_id: str, etag: str | None = None) -> Index | None:
        try:
            return self.index(revision_id, etag)
        except DamageError as error:
            log.warning("%s", error)
            return None
