from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.errors import DamageError, RepositoryBusyError
from backy.repository.repository import Repository
from backy.repository.revision import Trust, utc_now
from backy.scrubbing.scrub import Inventory, Item, Scrub, Scrubbed
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, SCRUB_LOCK, exclusive


class Watch:
    """A watch that goes on when it is told to; whoever sleeps makes it go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def stored(repository: Repository) -> Repository:
    """Of the image of five chunks there are three distinct ones."""
    Backup(repository, ("daily",)).run()
    return repository


def scrub(repository: Repository, *, deep: bool = True, **options) -> Scrubbed:
    return Scrub(repository, deep, utc_now, **options).run()


def files(repository: Repository) -> list[Path]:
    return sorted(repository.directory.glob("chunks/*/*.zst"), key=lambda path: path.name)


def position(repository: Repository) -> str:
    found = json.loads((repository.directory / SCRUB_LOCK).read_bytes())["chunk_id"]
    return base64.b64decode(found).hex()


def test_each_distinct_chunk_is_read_once(stored: Repository) -> None:
    found = scrub(stored)

    assert (found.total, found.chunks, found.complete) == (3, 3, True)
    assert found.bytes == 2 * CHUNK_SIZE + 1000


def test_a_light_scrub_reads_nothing_and_notes_nothing(stored: Repository) -> None:
    found = scrub(stored, deep=False)

    assert (found.chunks, found.bytes) == (3, 0)
    assert not (stored.directory / SCRUB_LOCK).exists()


def test_a_repository_without_revisions_is_sound(repository: Repository) -> None:
    for deep in (False, True):
        assert scrub(repository, deep=deep) == Scrubbed()


def test_a_deep_scrub_goes_on_behind_the_chunk_that_was_looked_at_last(stored: Repository) -> None:
    names = [path.stem for path in files(stored)]

    for name in [*names, names[0]]:
        found = scrub(stored, longest=timedelta(0))
        assert (found.chunks, found.total, found.complete) == (1, 3, False)
        assert position(stored) == name


def test_scrubs_of_one_round_read_each_chunk_once(stored: Repository) -> None:
    """Whatever somebody does by hand meanwhile; and another round begins with the first chunk."""
    scrub(stored, longest=timedelta(0))
    for total in (3, 2, 1, 0):
        found = scrub(stored, longest=timedelta(0), round="first")
        assert (found.total, found.chunks, found.complete) == (total, min(total, 1), total < 2)
        assert scrub(stored).complete
    found = scrub(stored, round="second")
    assert (found.total, found.complete) == (3, True)


def test_a_whole_round_from_the_middle_ends_where_it_began(stored: Repository) -> None:
    scrub(stored, longest=timedelta(0))
    before = position(stored)

    assert scrub(stored).complete
    assert position(stored) == before


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"storage": "x", "revision_id": "", "index": 0, "chunk_id": "x"}', b"\xff"]
)
def test_a_position_that_can_not_be_read_costs_nothing_but_time(
    stored: Repository, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (stored.directory / SCRUB_LOCK).write_bytes(content)

    assert scrub(stored).chunks == 3
    assert "the scrub begins anew" in caplog.text


def test_one_revision_is_read_from_its_begin_and_moves_no_position(stored: Repository) -> None:
    scrub(stored, longest=timedelta(0))
    before = position(stored)

    assert scrub(stored, only=stored.records.history()[0]).chunks == 3
    assert position(stored) == before


def test_what_else_is_broken_does_not_concern_one_revision(stored: Repository) -> None:
    Backup(stored, ("daily",)).run()
    first, second = stored.records.history()
    (stored.directory / f"{first.id}.rev").unlink()
    (stored.directory / f"{first.id}.rev").write_bytes(b"broken")

    assert scrub(stored, only=second).problems == []
    assert first.id in scrub(stored).problems[0]


def interrupted_after(count: int) -> Callable[[str, int], Callable[[int], None]]:
    seen = []

    def progress(_length: int) -> None:
        seen.append(1)
        if len(seen) > count:
            raise KeyboardInterrupt

    return lambda _step, _total: progress


def test_an_interrupted_scrub_notes_how_far_it_came(stored: Repository) -> None:
    with pytest.raises(KeyboardInterrupt):
        scrub(stored, steps=interrupted_after(1))

    assert position(stored) == files(stored)[1].stem


def test_damage_seen_before_an_interruption_is_seen_again(stored: Repository) -> None:
    files(stored)[0].unlink()
    with pytest.raises(KeyboardInterrupt):
        scrub(stored, steps=interrupted_after(1))

    assert not (stored.directory / SCRUB_LOCK).read_bytes()
    assert len(scrub(stored).damaged) == 1


def test_no_more_is_read_than_the_rate_allows(stored: Repository) -> None:
    watch = Watch()
    scrub(stored, rate=CHUNK_SIZE, monotonic=watch, sleep=watch.sleep)

    assert watch.now == pytest.approx((2 * CHUNK_SIZE + 1000) / CHUNK_SIZE)


def test_only_one_deep_scrub_runs_at_a_time(stored: Repository) -> None:
    with exclusive(stored.directory, SCRUB_LOCK):
        with pytest.raises(RepositoryBusyError):
            scrub(stored)
        assert scrub(stored, deep=False).complete
        assert scrub(stored, only=stored.records.history()[0]).complete


def test_a_purge_can_not_run_meanwhile_but_a_backup_can(stored: Repository) -> None:
    def step(_name: str, _total: int) -> Callable[[int], None]:
        with pytest.raises(RepositoryBusyError), exclusive(stored.directory, PURGE_LOCK):
            pass
        Backup(stored, ("meanwhile",)).run()
        return lambda _length: None

    assert scrub(stored, steps=step).complete
    assert len(stored.records.history()) == 2


def test_conclusions_wait_for_a_backup_that_may_repair_meanwhile(stored: Repository) -> None:
    path = files(stored)[0]
    content = path.read_bytes()
    path.unlink()
    looked = threading.Event()

    def progress(_length: int) -> None:
        looked.set()

    with ThreadPoolExecutor(1) as pool:
        with exclusive(stored.directory, BACKUP_LOCK):
            scrubbing = pool.submit(scrub, stored, steps=lambda _step, _total: progress)
            assert looked.wait(60)
            with pytest.raises(TimeoutError):
                scrubbing.result(timeout=0.2)
            path.write_bytes(content)
        found = scrubbing.result(timeout=60)
    assert (found.damaged, found.distrusted) == ([], [])
    assert stored.records.history()[0].trust is Trust.TRUSTED


def test_damage_that_can_not_be_noted_is_told_all_the_same(stored: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files(stored)[0]
    path.unlink()

    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("backy.scrubbing.scrub.note_damage", read_only)
    found = scrub(stored)

    assert any(path.stem in problem and "Read-only" in problem for problem in found.problems)
    assert not (stored.directory / SCRUB_LOCK).read_bytes()


def test_maps_that_can_not_be_read_are_problems(stored: Repository) -> None:
    revision = stored.records.history()[0]
    stored.records.map_path(revision.id).unlink()

    inventory = Inventory(stored, stored.records.history())

    assert list(inventory.items(None)) == []
    assert revision.id in inventory.problems[0]
    with pytest.raises(DamageError):
        stored.records.read_map(revision)


def test_every_chunk_comes_once_wherever_the_last_scrub_stopped(stored: Repository) -> None:
    inventory = Inventory(stored, stored.records.history())
    everything = list(inventory.items(None))

    assert len(everything) == 3
    for last in [Item("chunked", "", 0, bytes(32)), *everything, Item("x", "x", 9, b"\xff" * 32)]:
        items = list(inventory.items(last))
        assert sorted(items) == everything
        assert items[0] == min((item for item in everything if item > last), default=everything[0])
