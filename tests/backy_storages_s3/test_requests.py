"""How many requests commands take, and that a request that fails, or whose answer is lost, costs nothing else."""

from __future__ import annotations

import random
from typing import Any

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, Extent, identify
from backy.errors import StorageError
from backy_storages_s3.objects import Bucket
from backy_storages_s3.storage import S3Storage
from tests.backy_storages_s3.conftest import Machine
from tests.backy_storages_s3.proxy import Proxy

MIB = 2**20


@pytest.fixture
def through(machine: Machine, proxy: Proxy) -> Machine:
    """A machine whose requests go through the proxy."""
    machine.section = {**machine.section, "endpoint": proxy.endpoint}
    machine.image.write_bytes(random.Random(0).randbytes(9 * MIB))
    machine.init()
    machine.run("backup", "daily")
    return machine


def test_a_day_whose_source_tells_pages_takes_six_writes_and_reads_nothing(make, proxy, clock) -> None:
    """What the core does of a backup: 40 pages of 40 chunks differ."""
    chunks = [random.Random(number).randbytes(64 * 1024) * 64 for number in range(40)]
    ids = [identify(chunk) for chunk in chunks]
    storage = make(endpoint=proxy.endpoint)
    storage.initialize("identity1")
    storage.published()
    store_revision(storage, "revision1", None, chunks)
    for day in range(1, 4):
        clock.advance(days=1)
        storage = make(endpoint=proxy.endpoint)
        proxy.forget()
        assert storage.identity == "identity1"
        assert len(storage.published()) == 3 * day
        before, ids = ids, []
        chunks = [data[: day * PAGE_SIZE] + bytes([day]) * PAGE_SIZE + data[(day + 1) * PAGE_SIZE :] for data in chunks]
        with storage.create(f"revision{day + 1}", f"revision{day}", 40 * CHUNK_SIZE, set(before)) as writer:
            for index, data in enumerate(chunks):
                ids.append(identify(data))
                told = [Extent(index * CHUNK_SIZE + day * PAGE_SIZE, PAGE_SIZE, data=True)]
                assert writer.write_changes(index, ids[-1], data, before[index], told) == PAGE_SIZE
            stored = writer.commit()
        publish(storage, f"revision{day + 1}")
        assert proxy.counts == {"PUT": 6}, proxy.requests
        # each delta has the pages of those before it
        assert stored.bytes < 40 * 1000 * day
        check(storage, f"revision{day + 1}", chunks)


def store_revision(storage: S3Storage, name: str, parent: str | None, chunks: list[bytes]) -> None:
    with storage.create(name, parent, len(chunks) * CHUNK_SIZE, set()) as writer:
        for index, data in enumerate(chunks):
            writer.write(index, identify(data), data, None)
        writer.commit()
    publish(storage, name)


def publish(storage: S3Storage, name: str) -> None:
    for suffix in ("map", "state", "rev"):
        storage.publish(f"{name}.{suffix}", f"{suffix} of {name}".encode())


def check(storage: S3Storage, name: str, chunks: list[bytes]) -> None:
    with storage.open(name) as reader:
        for index, data in enumerate(chunks):
            assert reader.read(index, identify(data)) == data


def test_a_whole_backup_takes_seven_writes_at_most(through, proxy):
    """A page of a file changes, of which nothing is told, so that its chunk is read to be compared with."""
    content = bytearray(through.image.read_bytes())
    content[5 * MIB : 5 * MIB + 4] = b"page"
    through.image.write_bytes(content)
    proxy.forget()
    through.run("backup", "daily")
    assert proxy.counts["PUT"] <= 6
    assert proxy.counts["LIST"] == 0
    names = {request.name for request in proxy.requests if request.kind == "GET"}
    assert all(name.startswith("packs/") for name in names), names


def test_reading_asks_for_each_part_of_a_pack_once(through, proxy):
    proxy.forget()
    through.restored()
    # the marker, and ranges
    assert proxy.counts["GET"] <= 1 + 3
    assert proxy.counts.keys() == {"GET"}


# failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["drop", "lose", "503 SlowDown", "429 TooManyRequests", "500 InternalError"])
@pytest.mark.parametrize("every", [2, 3])
def test_a_request_that_fails_is_sent_again(failure: str, every: int, through, proxy):
    proxy.fault = lambda request: failure if request.number % every == 0 else None
    content = random.Random(5).randbytes(6 * MIB)
    through.image.write_bytes(content)
    through.run("backup", "daily")
    assert through.restored() == content
    proxy.fault = lambda _: None
    through.run("verify")
    through.rebuild()
    assert through.restored() == content


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ("403 AccessDenied", "grant these credentials"),
        ("403 ExpiredToken", "have expired: renew"),
        ("403 InvalidAccessKeyId", "are not accepted: check AWS_ACCESS_KEY_ID"),
        ("403 QuotaExceeded", "quota of the bucket"),
        ("403 RequestTimeTooSkewed", "set them"),
        ("404 NoSuchBucket", "there is no such bucket"),
        ("503 SlowDown", "try again later"),
        ("429 TooManyRequests", "try again later"),
        ("drop", "try again"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_server_that_fails_for_good_is_told_in_a_line(failure: str, text: str, through, proxy, blobs):
    before = dict(blobs)
    through.image.write_bytes(random.Random(7).randbytes(6 * MIB))
    proxy.fault = lambda request: failure if request.kind == "PUT" else None
    done = through.run("backup", "daily", code=1)
    said = [line for line in done.err.splitlines() if line.startswith("Error")]
    assert len(said) == 1
    assert text in said[0], said
    assert "\\n" not in said[0]
    assert "backysecret" not in done.err
    assert blobs.keys() == [*before]
    proxy.fault = lambda _: None
    through.run("backup", "daily")
    assert through.restored() == through.image.read_bytes()


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("http://127.0.0.1:9", "nobody answers at the endpoint"),
        ("http://no-such-host.invalid", "nobody knows the name of the server"),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_an_endpoint_that_is_not_there_is_told_in_a_line(endpoint: str, text: str, machine):
    machine.image.write_bytes(b"x")
    words = ["init", "--storage", machine.place, *machine.options(endpoint=endpoint), "file", machine.image]
    assert text in machine.run(*words, code=1).err
    assert not machine.directory.exists() or not (machine.directory / "config").exists()


def test_a_bucket_that_is_not_there_is_told_in_a_line(machine):
    machine.image.write_bytes(b"x")
    machine.section["bucket"] = "no-such-bucket"
    words = ["init", "--storage", machine.place, *machine.options(), "file", machine.image]
    assert "there is no such bucket" in machine.run(*words, code=1).err


class Careless(Bucket):
    """As some servers are, which put the second object in place of the first."""

    def _put(self, name: str, content: Any, mode: Any) -> str | None:
        return super()._put(name, content, "overwrite")


class Hasty(Bucket):
    """A server that knows but one condition."""

    def _put(self, name: str, content: Any, mode: Any) -> str | None:
        return super()._put(name, content, mode if mode == "create" else "overwrite")


@pytest.mark.parametrize("kind", [Careless, Hasty])
def test_a_server_that_ignores_conditions_is_refused(kind, make, blobs):
    with pytest.raises(StorageError, match="add 'single-writer: true'"):
        make(kind=kind).initialize("identity1")
    assert dict(blobs) == {}
    make(kind=kind, **{"single-writer": True}).initialize("identity1")


def test_one_who_is_said_to_be_alone_takes_no_lease(machine, blobs):
    machine.image.write_bytes(b"x")
    machine.init(**{"single-writer": "true"})
    machine.run("backup", "daily")
    machine.run("purge")
    machine.rebuild(**{"single-writer": "true"})
    assert machine.restored() == b"x"
    assert "lease" not in dict(blobs)
