"""Keeps chunks and records as objects of a server that knows PUT, GET, HEAD, DELETE and LIST."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import msgspec

from backy.api import ChunkDamageError, Config, ConfigError, Held, Purged, Storage, StorageError, Stored
from backy.config import typed
from backy.hookspecs import hookimpl

FORMAT = "objects of backy 3"
WRONG = "the storage 'http' takes an address, such as http://HOST:PORT/PATH"


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `storage`."""

    type: str
    address: str
    token: str | None = None


@hookimpl
def backy_storage(config: Config) -> Storage:
    return HttpStorage(typed(config, HttpConfig, "config.storage"))


@hookimpl
def backy_storage_config(argument: str) -> Config:
    if not argument.startswith("http://"):
        raise ConfigError(WRONG)
    return {"address": argument.rstrip("/")}


class Objects:
    """The objects below an address."""

    def __init__(self, config: HttpConfig) -> None:
        self.address = urlsplit(config.address)
        if not self.address.hostname:
            raise ConfigError(WRONG)
        self.headers = {"Authorization": f"Bearer {config.token}"} if config.token else {}

    def request(self, method: str, name: str, body: bytes | None = None, **headers: str) -> bytes | None:
        """Return the answer; None if there is no such object."""
        # A connection for each request: it is called from several threads.
        connection = HTTPConnection(self.address.hostname or "", self.address.port, timeout=30)
        try:
            connection.request(method, f"{self.address.path}/{name}", body, {**self.headers, **headers})
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            raise StorageError(f"{method} {name}: {self.address.netloc} does not answer: {error}") from error
        finally:
            connection.close()
        if answer.status == 404:
            return None
        if answer.status >= 300:
            raise StorageError(f"{method} {name}: {self.address.netloc} answers {answer.status} {answer.reason}")
        return content if method != "HEAD" else (answer.getheader("X-Size") or "").encode()

    def listed(self, folder: str) -> dict[str, tuple[str, int]]:
        """Return SHA-256 and size of every object below a folder, by its name there."""
        return {name: (digest, size) for name, digest, size in json.loads(self.request("LIST", folder) or b"[]")}


class HttpStorage:
    """A store at one address: `store`, `chunks/<id>` and `records/<name>`."""

    raw = False
    shares_chunks = True
    verifier = "changed"
    parallel = 4
    restore_hint = "GET <address>/chunks/<id> gives a chunk; <id>.map has the ids"

    def __init__(self, config: HttpConfig) -> None:
        self.objects = Objects(config)

    @property
    def identity(self) -> str:
        content = self.objects.request("GET", "store")
        if content is None:
            raise StorageError(f"there is no store at {self.objects.address.geturl()}")
        found, _, identity = content.decode().partition("\n")
        if found != FORMAT:
            raise StorageError(f"{self.objects.address.geturl()} has another format: {found!r}")
        return identity

    def initialize(self, identity: str) -> None:
        if self.objects.request("GET", "store") is None:
            self.objects.request("PUT", "store", f"{FORMAT}\n{identity}".encode(), **{"If-None-Match": "*"})

    # images -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def create(self, revision_id: str, parent: str | None, size: int, reliable: Container[bytes]) -> Iterator[Writer]:
        yield Writer(self.objects, reliable)

    @contextmanager
    def open(self, revision_id: str) -> Iterator[Reader]:
        yield Reader(self.objects)

    def repair(self, revision_id: str, index: int, chunk_id: bytes, data: bytes) -> None:
        self.objects.request("PUT", f"chunks/{chunk_id.hex()}", data)

    def remove(self, revision_id: str) -> None:
        """Leave everything to `purge`: no chunk belongs to one revision."""

    def held(self, live: Container[bytes]) -> Held:
        return Held()

    def purge(self, live: Container[bytes]) -> Purged:
        dead = {chunk_id: size for chunk_id, size in self.inventory().items() if chunk_id not in live}
        for chunk_id in dead:
            self.objects.request("DELETE", f"chunks/{chunk_id.hex()}")
        return Purged(len(dead), sum(dead.values()))

    def inventory(self) -> Mapping[bytes, int]:
        return {bytes.fromhex(name): size for name, (_, size) in self.objects.listed("chunks").items()}

    # records ----------------------------------------------------------------------------------------------------------

    def publish(self, name: str, content: bytes) -> None:
        # A record is never replaced: another writer would be noticed by this.
        once = {"If-None-Match": "*"} if name.endswith(".rev") else {}
        self.objects.request("PUT", f"records/{name}", content, **once)

    def withdraw(self, name: str) -> None:
        self.objects.request("DELETE", f"records/{name}")

    def published(self) -> Mapping[str, str]:
        return {name: digest for name, (digest, _) in self.objects.listed("records").items()}

    def fetch(self, name: str) -> bytes:
        content = self.objects.request("GET", f"records/{name}")
        if content is None:
            raise StorageError(f"the server has no {name}")
        return content


class Writer:
    """Writes a revision. An object is there as a whole when its PUT is answered."""

    def __init__(self, objects: Objects, reliable: Container[bytes]) -> None:
        self.objects = objects
        self.reliable = reliable
        self.stored: dict[str, int] = {}

    def write(self, index: int, chunk_id: bytes, data: bytes, previous: bytes | None) -> int:
        name = f"chunks/{chunk_id.hex()}"
        if not (chunk_id in self.reliable and self.objects.request("HEAD", name) == str(len(data)).encode()):
            self.objects.request("PUT", name, data)
            self.stored[name] = len(data)
        return len(data)

    def zero(self, index: int) -> None:
        """Store nothing."""

    def commit(self) -> Stored:
        return Stored(sum(self.stored.values()))


class Reader:
    """Reads chunks of any revision."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def read(self, index: int, chunk_id: bytes) -> bytes:
        content = self.objects.request("GET", f"chunks/{chunk_id.hex()}")
        if content is None:
            raise ChunkDamageError(chunk_id, "the server does not have it")
        return content

    def probe(self, index: int, chunk_id: bytes) -> int:
        size = self.objects.request("HEAD", f"chunks/{chunk_id.hex()}")
        if size is None:
            raise ChunkDamageError(chunk_id, "the server does not have it")
        return int(size)
