"""Every chunk as it is, in a file named by its id."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from backy.api import (
    ChunkDamageError,
    Config,
    Held,
    ImageReader,
    ImageWriter,
    Job,
    Purged,
    Storage,
    StorageError,
    Stored,
)
from backy.config import typed
from backy.hookspecs import hookimpl

BACKY_CONTRACT = "1.0"


class PlainConfig(msgspec.Struct, forbid_unknown_fields=True):
    type: str


class Plain:
    raw = False
    shares_chunks = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored = 0

    @property
    def identity(self) -> str:
        try:
            return (self._folder / "identity").read_text()
        except FileNotFoundError:
            raise StorageError(f"there is no store in {self._folder}") from None

    def initialize(self, identity: str) -> None:
        self._folder.mkdir(exist_ok=True)
        if not (self._folder / "identity").exists():
            (self._folder / "identity").write_text(identity)

    @contextmanager
    def create(
        self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]
    ) -> Iterator[ImageWriter]:
        yield self

    @contextmanager
    def open(self, revision_id: str) -> Iterator[ImageReader]:
        yield self

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        (self._folder / chunk_id.hex()).write_bytes(data)
        self._stored += len(data)
        return len(data)

    def zero(self, index: int) -> None:
        pass

    def commit(self) -> Stored:
        return Stored(self._stored)

    def read(self, index: int, chunk_id: bytes) -> bytes:
        try:
            return (self._folder / chunk_id.hex()).read_bytes()
        except FileNotFoundError:
            raise ChunkDamageError(chunk_id, "it is missing") from None

    def probe(self, index: int, chunk_id: bytes) -> None:
        self.read(index, chunk_id)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        self.write(index, chunk_id, data, None)

    def remove(self, revision_id: str) -> None:
        pass

    def held(self, live: Container[bytes]) -> Held:
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        chunks = [path for path in self._folder.iterdir() if path.name != "identity"]
        dead = [path for path in chunks if bytes.fromhex(path.name) not in live]
        size = sum(path.stat().st_size for path in dead)
        for path in dead:
            path.unlink()
        return Purged(len(dead), size)


@hookimpl
def backy_storage(config: Config, job: Job) -> Storage:
    typed(config, PlainConfig, "config.storage")
    return Plain(job.store)
