"""One writer at a time, whatever the others do."""

from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from backy.api import identify
from backy.errors import StorageError
from backy_storages_s3.cache import Cache
from backy_storages_s3.lease import LENGTH, Lease, Terms, verdict
from backy_storages_s3.objects import Found

START = datetime(2026, 12, 1, tzinfo=UTC)


class Few:
    """Objects in memory, with the conditions of a bucket. Answers of some changes are lost."""

    address = "memory"

    def __init__(self) -> None:
        self.found: dict[str, Found] = {}
        self.count = 0

    def get(self, name: str) -> Found | None:
        return self.found.get(name)

    def create(self, name: str, content: bytes) -> str | None:
        return None if name in self.found else self.put(name, content)

    def replace(self, name: str, content: bytes, etag: str) -> str | None:
        there = self.found.get(name)
        return self.put(name, content) if there and there.etag == etag else None

    def put(self, name: str, content: bytes) -> str:
        self.count += 1
        self.found[name] = Found(content, str(self.count))
        return str(self.count)


class Writers(RuleBasedStateMachine):
    """Three writers, whose commands begin and end, and who lose what they remember."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.objects, self.now = Few(), START
        self.leases = [self.lease(number) for number in range(3)]
        self.until: dict[int, datetime] = {}
        self.last: int | None = None

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    def lease(self, number: int) -> Lease:
        cache = Cache(Path(self.folder.name) / str(number), "memory")
        return Lease(self.objects, cache, f"vm{number}", lambda: self.now)

    @rule(minutes=st.integers(0, 20))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(number=st.integers(0, 2))
    def another_command(self, number: int) -> None:
        self.leases[number] = self.lease(number)

    @rule(number=st.integers(0, 2))
    def write(self, number: int) -> None:
        try:
            unbroken = self.leases[number].hold()
        except StorageError:
            # either another one has it, or has had it since this command began
            assert self.last != number
            return
        others = [until for other, until in self.until.items() if other != number]
        assert all(until <= self.now for until in others), "two have it"
        # what is remembered is relied upon only if nobody else has written
        assert not unbroken or self.last == number
        self.until[number], self.last = self.now + LENGTH / 2, number


TestWriters = Writers.TestCase
TestWriters.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize(
    ("owner", "minutes", "expected"),
    [("me", 5, "renew"), ("me", -5, "renew"), ("other", 5, "wait"), ("other", 0, "take")],
)
def test_what_may_be_done_with_terms(owner: str, minutes: int, expected: str):
    assert verdict(Terms(owner, "", START + timedelta(minutes=minutes), 1), "me", START) == expected
    assert verdict(None, "me", START) == "make"


def lease_in(folder: Path, objects: Few, now: list[datetime]) -> Lease:
    folder.mkdir(exist_ok=True)
    return Lease(objects, Cache(folder / "s3", "memory"), folder.name, lambda: now[0])


def test_a_copy_of_a_directory_is_another_writer(tmp_path: Path):
    objects, now = Few(), [START]
    first = lease_in(tmp_path / "vm", objects, now)
    first.hold()
    shutil.copytree(tmp_path / "vm", tmp_path / "copy")
    with pytest.raises(StorageError, match=r"vm on .* writes to memory until"):
        lease_in(tmp_path / "copy", objects, now).hold()
    assert lease_in(tmp_path / "vm", objects, now).hold()


def test_a_command_beside_a_backup_takes_no_lease_away(tmp_path: Path):
    objects, now = Few(), [START]
    backup = lease_in(tmp_path / "vm", objects, now)
    assert not backup.hold()
    assert lease_in(tmp_path / "vm", objects, now).hold()
    now[0] += LENGTH * 2 / 3
    # what is remembered of the objects is no longer believed
    assert not backup.hold()
    assert backup.hold() is False
    now[0] += LENGTH * 2
    lease_in(tmp_path / "other", objects, now).hold()
    with pytest.raises(StorageError, match="another writer has taken the lease"):
        backup.hold()


def test_another_writer_has_to_wait_and_is_told_for_whom(make, clock):
    first, second = make("one"), make("two")
    first.initialize("identity1")
    first.publish("config", b"of the first")
    # looking does no harm
    assert second.published().keys() == {"config"}
    for act in (
        lambda: second.publish("config", b"of the second"),
        lambda: second.withdraw("config"),
        lambda: second.purge(set()),
        lambda: second.remove("revision1") or second.create("revision1", None, 0, ()).__enter__(),
    ):
        with pytest.raises(StorageError, match=r"one on .* writes to .* until 2026-12-01 00:15:00\+00:00: try again"):
            act()
    clock.advance(minutes=16)
    # the list is out of date
    with pytest.raises(StorageError, match="until"):
        second.purge(set())
    assert second.published().keys() == {"config"}
    second.publish("config", b"of the second")
    with pytest.raises(StorageError, match="two on"):
        make("one").publish("config", b"of the first")
    # one that goes on as if nothing had happened
    clock.advance(minutes=16)
    with pytest.raises(StorageError, match="another writer has taken the lease"):
        first.publish("config", b"of the first")
    assert make("one").published().keys() == {"config"}


def test_the_same_directory_goes_on_at_once_even_if_it_has_lost_what_it_knew(make, tmp_path, proxy):
    make().initialize("identity1")
    make().publish("config", b"one")
    (tmp_path / "vm/s3/memory").unlink()
    proxy.forget()
    storage = make(endpoint=proxy.endpoint)
    storage.publish("config", b"two")
    assert proxy.counts["LIST"] == 1
    assert storage.fetch("config") == b"two"


def test_the_lease_of_a_long_backup_is_renewed(make, clock, blobs):
    storage = make()
    storage.initialize("identity1")
    storage.published()
    before = blobs["lease"]
    with storage.create("revision1", None, 1, ()) as writer:
        clock.advance(minutes=8)
        writer.write(0, identify(b"x"), b"x", None)
        writer.commit()
    assert blobs["lease"] != before


def test_of_many_who_begin_at_once_one_writes(make):
    make("first").initialize("identity1")
    storages = [make(f"vm{number}") for number in range(8)]
    done: list[str] = []
    said: list[str] = []

    def write(number: int) -> None:
        try:
            storages[number].publish("config", b"%d" % number)
            done.append(f"vm{number}")
        except StorageError as error:
            said.append(str(error))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert all(" on " in text or "all the time" in text for text in said), said


@pytest.mark.parametrize("alone", [False, True])
def test_a_record_never_takes_the_place_of_another(make, alone):
    options = {"single-writer": alone}
    storage = make(**options)
    storage.initialize("identity1")
    for _ in range(2):
        storage.publish("revision1.rev", b"one")
    for other in (storage, make(**options)):
        with pytest.raises(StorageError, match=r"has another revision1\.rev already"):
            other.publish("revision1.rev", b"two")
    storage.withdraw("revision1.rev")
    storage.publish("revision1.rev", b"two")


def test_a_lease_that_nobody_can_read_is_told(make, blobs):
    make().initialize("identity1")
    blobs["lease"] = b"damaged"
    with pytest.raises(StorageError, match=r"lease .* is damaged"):
        make().publish("config", b"")


def test_another_store_at_the_same_place_is_noticed(make, blobs):
    make().initialize("identity1")
    make().publish("config", b"")
    blobs.empty(())
    with pytest.raises(StorageError, match="there is no store"):
        make().published()
    make("other").initialize("identity2")
    assert make().identity == "identity2"
    assert make().published() == {}
