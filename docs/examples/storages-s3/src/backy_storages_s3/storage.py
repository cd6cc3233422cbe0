"""The storage: a prefix of a bucket, which is one repository's."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files

from backy.api import Held, Job, Purged
from backy.durable import read_file
from backy.errors import DamageError, StorageError
from backy_storages_chunked.codec import NO_COMPRESSION, Codec
from backy_storages_s3.cache import SUFFIX
from backy_storages_s3.config import S3Config
from backy_storages_s3.index import Index, Place, Row
from backy_storages_s3.objects import Bucket, Objects
from backy_storages_s3.packs import FOLDER, Pack
from backy_storages_s3.purging import Purge, held
from backy_storages_s3.reader import Reader, stored
from backy_storages_s3.salvage import index_of, salvaged
from backy_storages_s3.store import OWN, Store
from backy_storages_s3.writer import Begun, Writer

log = logging.getLogger(__name__)
UNPACK, RESTORE = "unpack.py", "restore.py"
_LARGEST_PROGRAM = 2**20


def _now() -> datetime:
    return datetime.now(UTC)


class S3Storage:
    """Keeps images as packs of chunks, and records, below one prefix of a bucket."""

    raw = False
    shares_chunks = True
    parallel = 4
    # to read back what was written is what costs money
    verifier = "sample"

    def __init__(
        self, job: Job, config: S3Config, clock: Callable[[], datetime] = _now, objects: Objects | None = None
    ) -> None:
        self._config = config
        self._directory = job.directory
        self._objects = objects or _objects(config)
        self._store = Store(self._objects, config, job, clock)
        self._codec = Codec(NO_COMPRESSION if config.compression == "none" else config.compression)

    @property
    def restore_hint(self) -> str:
        """How images come back without backy."""
        return f"copy {self._config.bucket}/{self._config.prefix} by rclone, run unpack.py there, and then restore.py"

    @property
    def identity(self) -> str:
        """The identity in `store`; raises StorageError."""
        return self._store.identity()

    def initialize(self, identity: str) -> None:
        """Make the store, and try whether the server knows conditions.

        Raises:
            StorageError: it can not be reached, or does not know them.
        """
        if self._store.read_only:
            self._store.identity()
            return
        self._store.cache.folder.mkdir(mode=0o750, exist_ok=True)
        if not self._config.single_writer:
            self._try_conditions()
        if self._store.make(identity):
            self._put_program(UNPACK, files("backy_storages_s3").joinpath(UNPACK).read_bytes())

    def _try_conditions(self) -> None:
        """Refuse a server that puts an object although a condition forbids it."""
        name = f"probe-{secrets.token_hex(8)}"
        try:
            first = self._objects.create(name, b"first")
            second = self._objects.create(name, b"second")
            third = self._objects.replace(name, b"third", "0" * 32)
        finally:
            with suppress(StorageError):
                self._objects.delete([name])
        if first is None or second is not None or third is not None:
            raise StorageError(
                f"the server of {self._config.address} ignores the conditions of requests, so that two writers would "
                "not notice each other: add 'single-writer: true' if there never are two"
            )

    # images -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def create(self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]) -> Iterator[Writer]:
        """Begin to store a revision."""
        self._store.hold()
        writer = Writer(self._store, self._codec, Begun(revision_id, parent, size), reliable)
        try:
            yield writer
        finally:
            writer.close()

    @contextmanager
    def open(self, revision_id: str) -> Iterator[Reader]:
        """Open a revision for reading, or all of them by an empty id."""
        yield Reader(self._store, self._codec, revision_id)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        """Store a chunk in full, in a pack of its own, and let all revisions that have it name that."""
        pack = Pack("repair")
        pack.add(chunk_id, frame := self._codec.compress(data))
        name, content = pack.seal()
        self._store.hold()
        self._objects.put(f"{FOLDER}/{name}", content)
        place = Place(name, 0, len(frame))
        for known in {*self._store.indexed(), revision_id}:
            found, position = self._index(known), index if known == revision_id else None
            if (mended := _mended(found, chunk_id, place, position)) is not None:
                self._store.put_index(known, mended)

    def _index(self, revision_id: str) -> Index:
        """Return an index; in place of one that can not be made anew, what there is in packs, for a purge to see."""
        try:
            return index_of(self._store, revision_id)
        except DamageError as error:
            log.warning("%s", error)
            return salvaged(self._store)

    def remove(self, revision_id: str) -> None:
        """Remove the index of a revision; `purge` removes packs."""
        self._store.remove(revision_id + SUFFIX)
        self._store.cache.drop(revision_id + SUFFIX)

    def held(self, live: Container[bytes]) -> Held:
        """Count the chunks that are kept only because live deltas are made of them."""
        return held(self._store, live)

    def purge(self, live: Container[bytes]) -> Purged:
        """Condemn packs of which nothing is live, and delete those that have been so for a while."""
        return Purge(self._store, live).run()

    def inventory(self) -> Mapping[bytes, int]:
        """Return what each chunk takes, by the list of packs."""
        packs = {name: one.size for name, one in self._objects.list(FOLDER).items()}
        found: dict[bytes, int] = {}
        for index in self._indexes():
            sizes = ((index.chunk_id(row), stored(index, row, packs)) for row in range(len(index)))
            found.update((chunk_id, size) for chunk_id, size in sizes if size is not None)
        return found

    def _indexes(self) -> Iterator[Index]:
        """Yield the indexes that there are now, and what tables of packs tell in place of those that are lost."""
        is_one_lost = False
        for index in self._store.indexes_now():
            is_one_lost |= index is None
            if index is not None:
                yield index
        if is_one_lost:
            yield salvaged(self._store)

    def dispose(self) -> None:
        """Remove all objects, and what is remembered of them."""
        self._store.hold()
        self._objects.delete([f"{FOLDER}/{name}" for name in self._objects.list(FOLDER)])
        # the lease is the last: nobody else shall find a part
        self._objects.delete(sorted(self._objects.list(), key=lambda name: name == "lease"))
        self._store.cache.forget()

    # records ----------------------------------------------------------------------------------------------------------

    def publish(self, name: str, content: bytes) -> None:
        """Keep a file; a record never takes the place of another one."""
        if self._store.read_only and not name.endswith((".rev", ".map", ".state")):
            # what explains a store is as it was
            return
        if name.endswith(".rev") and name.removesuffix(".rev") not in self._store.committed:
            self._require_packs(name.removesuffix(".rev"))
        self._store.put(name, content, once=name.endswith(".rev"))
        if name == "README":
            with suppress(OSError):
                self._put_program(RESTORE, read_file(self._directory / RESTORE, _LARGEST_PROGRAM))

    def _require_packs(self, revision_id: str) -> None:
        """Refuse the record of a revision whose packs a purge of another writer may have removed since."""
        try:
            index = self._store.index(revision_id)
        except DamageError:
            return  # it is made anew when it is needed, of the packs that there are
        if lost := {index.place(row).pack for row in range(len(index))} - self._objects.list(FOLDER).keys():
            raise StorageError(
                f"{self._config.address} has no pack {min(lost)} of revision {revision_id} any more, as another writer "
                f"has purged meanwhile: 'backy forget -r {revision_id}', and make a new backup"
            )

    def _put_program(self, name: str, content: bytes) -> None:
        """Keep a program for those who have nothing but the bucket."""
        self._objects.put(name, content)

    def withdraw(self, name: str) -> None:
        """Remove a file."""
        self._store.remove(name)

    def published(self) -> Mapping[str, str]:
        """Return the SHA-256 of all files."""
        names = self._store.list_again().items()
        return {name: one.digest for name, one in names if name not in OWN and not name.endswith(SUFFIX)}

    def fetch(self, name: str) -> bytes:
        """Return a file."""
        return self._store.get(name)


def _mended(index: Index, chunk_id: bytes, place: Place, position: int | None) -> Index | None:
    """Return an index in which a chunk is at another place, also at `position`; None if it has none of it."""
    rows = {row: index.row(row) for row in range(len(index))}
    whole = {row for row, one in rows.items() if one.chunk_id == chunk_id}
    missing = position is not None and index.at(position) is None
    if not whole and not missing:
        return None
    made, where = Index(), {}
    todo = [(index.positions[row], row) for row in rows] + ([(position or 0, -1)] if missing else [])
    for at, row in sorted(todo):
        found = Row(chunk_id, place) if row < 0 or row in whole else rows[row]
        where[row] = made.append(at, found)
    # rows behind a new one have other numbers than before
    for row, one in rows.items():
        if one.is_delta and row not in whole:
            made.set_base(where[row], where[one.base])
    return made


def _objects(config: S3Config) -> Objects:
    if config.at is None:
        return Bucket(config)
    from backy_storages_s3.versions import PastBucket

    return PastBucket(config, config.at)
