"""A real gateway of Ceph for all tests, a prefix of a bucket for each, and a proxy before the gateway."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Callable, Container, Iterator, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from backy.api import Job
from backy.config import typed
from backy_storages_s3 import objects
from backy_storages_s3.config import S3Config
from backy_storages_s3.objects import Bucket
from backy_storages_s3.storage import S3Storage
from tests.backy_storages_s3.proxy import Proxy
from tests.cluster import Cluster
from tests.cluster.gateway import Gateway, missing

BUCKET = "backups"


class Blobs(MutableMapping[str, bytes]):
    """The objects below a prefix, read and written without the storage. What has not changed is not moved again."""

    def __init__(self, client: Any, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.seen: dict[str, tuple[str, bytes]] = {}
        self.listed: dict[str, str] = {}
        self.emptied = False

    def place(self, name: str = "") -> dict[str, str]:
        return {"Bucket": BUCKET, "Key": f"{self.prefix}/{name}"}

    def etags(self) -> dict[str, str]:
        if self.emptied:
            self.empty(())
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/")
        found = [one for page in pages for one in page.get("Contents", ())]
        return {one["Key"].removeprefix(f"{self.prefix}/"): one["ETag"] for one in found}

    def keys(self) -> Any:
        # for `dict(blobs)`, which asks for each at once
        self.listed = self.etags()
        return list(self.listed)

    def __iter__(self) -> Iterator[str]:
        return iter(self.etags())

    def __len__(self) -> int:
        return len(self.etags())

    def __getitem__(self, name: str) -> bytes:
        return self.read(name, self.listed.pop(name, None))

    def read(self, name: str, etag: str | None) -> bytes:
        if etag is None or self.seen.get(name, ("", b""))[0] != etag:
            try:
                found = self.client.get_object(**self.place(name))
            except self.client.exceptions.NoSuchKey:
                raise KeyError(name) from None
            self.seen[name] = found["ETag"], found["Body"].read()
        return self.seen[name][1]

    def items(self) -> Any:
        return {name: self.read(name, etag) for name, etag in self.etags().items()}.items()

    def __setitem__(self, name: str, content: bytes) -> None:
        self.client.put_object(**self.place(name), Body=content)

    def __delitem__(self, name: str) -> None:
        self.client.delete_object(**self.place(name))

    def clear(self) -> None:
        # most of it is likely to be put back at once
        self.emptied = True

    def empty(self, but: Container[str]) -> None:
        """Delete all objects but some."""
        self.emptied = False
        self.delete([name for name in self.etags() if name not in but])

    def delete(self, names: list[str]) -> None:
        if names:
            gone = [{"Key": self.place(name)["Key"]} for name in names]
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": gone})

    def update(self, other: Any = (), /, **_: bytes) -> None:
        contents, emptied, self.emptied = dict(other), self.emptied, False
        there = self.etags()
        if emptied:
            self.delete([name for name in there if name not in contents])
        for name, content in contents.items():
            if there.get(name) != f'"{hashlib.md5(content).hexdigest()}"':
                self[name] = content


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    """A gateway with an empty bucket."""
    if cause := missing():
        pytest.skip(f"NOT TESTED: what needs Ceph's object gateway: {cause}")
    with Cluster.running() as cluster, Gateway.running(cluster) as found:
        client_of(found).create_bucket(Bucket=BUCKET)
        yield found


def client_of(gateway: Gateway) -> Any:
    keys = {"aws_access_key_id": gateway.access_key, "aws_secret_access_key": gateway.secret_key}
    # a fresh session, as no test shall read somebody's files
    style = Config(s3={"addressing_style": "path"}, region_name="us-east-1")
    return boto3.session.Session().client("s3", endpoint_url=gateway.endpoint, config=style, **keys)


@pytest.fixture(scope="session")
def client(gateway: Gateway) -> Any:
    return client_of(gateway)


@pytest.fixture(autouse=True)
def credentials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as commands find them; none of somebody's."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", Gateway.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", Gateway.secret_key)


@pytest.fixture
def prefix() -> str:
    """A prefix that nobody has used."""
    return f"vm-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def blobs(client: Any, prefix: str) -> Iterator[Blobs]:
    """The objects of the test."""
    made = Blobs(client, prefix)
    yield made
    made.empty(())


@pytest.fixture
def proxy(gateway: Gateway) -> Iterator[Proxy]:
    made = Proxy(gateway.host, gateway.port)
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after one more attempt."""
    monkeypatch.setattr(objects, "MOST_RETRIES", 1)


@pytest.fixture
def section(gateway: Gateway, prefix: str) -> dict[str, Any]:
    """The section `storage`."""
    place = {"bucket": BUCKET, "prefix": prefix, "endpoint": gateway.endpoint}
    return {"type": "s3", "http": True, "unencrypted": True, **place}


@pytest.fixture
def through_proxy(section: dict[str, Any], proxy: Proxy) -> dict[str, Any]:
    """The section `storage`, with the proxy as the server."""
    return {**section, "endpoint": proxy.endpoint}


class Standing:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 12, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **units: float) -> None:
        self.now += timedelta(**units)


@pytest.fixture
def clock() -> Standing:
    return Standing()


@pytest.fixture
def make(tmp_path: Path, clock: Standing, section: dict[str, Any], blobs: Blobs) -> Callable[..., S3Storage]:
    """Make the storage of the directory `name`, as `make(name, **options)`; its clock is `clock`."""

    def made(name: str = "vm", kind: Callable[[S3Config], Bucket] = Bucket, **options: object) -> S3Storage:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        config = typed({**section, **options}, S3Config, "")
        return S3Storage(Job(name, "job", folder, folder / "s3"), config, clock, kind(config))

    return made


@dataclass
class Machine:
    """An image, its directory, and the command line."""

    folder: Path
    backy: Callable[..., Any]
    section: dict[str, Any]

    @property
    def directory(self) -> Path:
        return self.folder / "vm"

    @property
    def image(self) -> Path:
        return self.folder / "disk.img"

    @property
    def place(self) -> str:
        return f"s3:{self.section['bucket']}/{self.section['prefix']}"

    def options(self, **more: object) -> list[str]:
        keys = {"endpoint": self.section["endpoint"], "http": "true", "unencrypted": "true", **more}
        return [word for key, text in keys.items() for word in ("-o", f"storage.{key}={text}")]

    def run(self, *words: object, code: int = 0) -> Any:
        done = self.backy("-b", self.directory, *words)
        assert done.code == code, (words, done)
        return done

    def init(self, *words: str, **more: object) -> None:
        self.run("init", "--storage", self.place, *self.options(**more), *words, "file", self.image)

    def objects(self) -> list[str]:
        """Return the names of all objects, but those in folders."""
        return [*Bucket(typed({"type": "s3", **self.section}, S3Config, "")).list()]

    def rebuild(self, **more: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.run("init", "--from", self.place, *self.options(**more))

    def restored(self, *words: object) -> bytes:
        target = self.folder / "restored"
        target.unlink(missing_ok=True)
        self.run("restore", *words, target)
        return target.read_bytes()


@pytest.fixture
def machine(tmp_path: Path, backy: Callable[..., Any], section: dict[str, Any], blobs: Blobs) -> Machine:
    """A machine that is backed up to the gateway."""
    return Machine(tmp_path, backy, section)
