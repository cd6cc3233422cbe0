"""What was forgotten, until its time in the trash is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from backy.backup.backup import Backup
from backy.config import Duration
from backy.conversion.convert import Conversion
from backy.errors import ForgettingRefusedError, PluginError, RevisionNotFoundError
from backy.groups.forget import expire, forget, undelete
from backy.mount.tree import Folder, Tree
from backy.plugins.events import Events
from backy.repository.config import ScheduledTag
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, utc_now
from backy.retention.purge import purge
from backy.retention.tags import set_tags
from backy.testing.clock import Clock
from tests.trash import content as in_trash

DAY = timedelta(days=1)


@pytest.fixture
def forgotten(repository: Repository, image: Path, clock: Clock) -> Revision:
    """A revision with content that no other has, in the trash."""
    first = Backup(repository, ("daily",), clock=clock).run()
    image.write_bytes(b"another image entirely")
    Backup(repository, ("daily",), clock=clock).run()
    forget(repository, [first.id], clock=clock, events=Events())
    return in_trash(repository)[0]


def content(repository: Repository, revision: Revision) -> bytes:
    with repository.image(revision) as image:
        return image.pread(0, image.size)


def test_it_comes_back_whole_with_a_tag_that_keeps_it(
    repository: Repository, forgotten: Revision, clock: Clock
) -> None:
    purge(repository, Events(), clock)
    back = undelete(repository, forgotten.id[:10], Events())
    assert repository.records.history()[0] == back
    # the image got smaller after it, so that it is held for that, too
    assert back.tags == ("daily", "manual:undeleted", "pinned:shrunk")
    assert len(content(repository, back)) == back.size > 4 << 20
    assert in_trash(repository) == []


@pytest.mark.parametrize("name", ["last", "1", "daily"])
def test_nobody_who_looks_for_revisions_sees_it(repository: Repository, forgotten: Revision, name: str) -> None:
    records = repository.records
    assert forgotten.id not in {revision.id for revision in records.history()}
    if name == "1":
        with pytest.raises(RevisionNotFoundError):
            records.select(name)
    else:
        assert records.select(name).id != forgotten.id
    with pytest.raises(RevisionNotFoundError, match=f"in the trash; 'backy undelete {forgotten.id}'"):
        records.select(forgotten.id)


def test_a_mount_does_not_show_it(repository: Repository, forgotten: Revision) -> None:
    tree = Tree(repository)
    shown = tree.find([])
    assert isinstance(shown, Folder)
    assert forgotten.id not in shown.names()
    assert tree.find([forgotten.id]) is None
    dated = f"{forgotten.timestamp:%Y-%m-%dT%H%M%S.%fZ}-{forgotten.id}"
    assert tree.find(["by-date", dated]) is None
    for folder in shown.names():
        entry = tree.find([folder])
        assert not (isinstance(entry, Folder) and [name for name in entry.names() if forgotten.id in name])


def test_nothing_builds_upon_it(repository: Repository, clock: Clock) -> None:
    first, second = (Backup(repository, ("daily",), clock=clock).run() for _ in range(2))
    forget(repository, [second.id], clock=clock, events=Events())
    third = Backup(repository, ("daily",), clock=clock).run()
    assert (second.parent, third.parent) == (first.id, first.id)


def test_it_keeps_no_place_among_those_that_are_wanted(
    repository: Repository, old_revisions: Callable, clock: Clock
) -> None:
    schedule = {"daily": ScheduledTag(Duration(days=1), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    oldest, middle, older, newest = old_revisions(repository, dict.fromkeys((30, 20, 10, 0), "daily"))
    forget(repository, [newest.id], clock=clock, events=Events())
    assert [one.revision for one in expire(repository, clock, Events()).going] == [oldest]
    assert repository.records.history() == [middle, older]


def test_tags_that_a_person_removed_take_all_but_the_last_good_one_to_the_trash(
    repository: Repository, old_revisions: Callable, clock: Clock
) -> None:
    """The brake of `forget` is not asked: everything can be got back for the term."""
    schedule = {"daily": ScheduledTag(Duration(days=1), 2)}
    repository.configure(msgspec.structs.replace(repository.config, schedule=schedule))
    *others, newest = old_revisions(repository, dict.fromkeys(range(9), "daily"))
    for revision in (*others, newest):
        set_tags(repository, revision.id, [])
    for _ in range(2):
        expire(repository, clock, Events())
        assert [one.id for one in repository.records.history()] == [newest.id]
        assert [one.id for one in in_trash(repository)] == [one.id for one in others]
    assert purge(repository, Events(), clock).files == 0
    for revision in others:
        undelete(repository, revision.id, Events())
    assert len(repository.records.history()) == 9
    acts = [line.act for line, _ in repository.records.journal.read() if line and line.step == "done"]
    assert acts[-25:] == ["tags"] * 9 + ["expire"] * 8 + ["undelete"] * 8


def test_a_guest_that_fills_the_disk_does_not_empty_it(
    repository: Repository, forgotten: Revision, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backy.retention.purge.is_short", lambda _: True)
    assert purge(repository, Events(), clock).files == 0
    assert in_trash(repository) == [forgotten]
    assert purge(repository, Events(), clock, everything=True).files > 0


def test_status_shows_it(backy: Callable, repository: Repository, forgotten: Revision) -> None:
    assert forgotten.id not in backy("-b", repository.directory, "status", "--wide").out
    done = backy("-b", repository.directory, "status", "--trash", "--wide")
    assert forgotten.id in done.out
    assert repository.records.history()[0].id not in done.out


def test_the_newest_one_hands_last_to_the_one_before(repository: Repository, clock: Clock) -> None:
    first, second = (Backup(repository, ("daily",), clock=clock).run() for _ in range(2))
    forget(repository, ["last"], events=Events())
    assert repository.records.linked() == first.id
    undelete(repository, second.id, events=Events())
    assert repository.records.linked() == second.id
    third = Backup(repository, ("daily",), clock=clock).run()
    assert third.seq == 3


def test_the_number_of_a_forgotten_revision_is_not_used_again(repository: Repository, clock: Clock) -> None:
    for _ in range(2):
        Backup(repository, ("daily",), clock=clock).run()
    forget(repository, ["last"], events=Events())
    (repository.directory / ".seq").unlink()
    assert Backup(repository, ("daily",), clock=clock).run().seq == 3


def test_a_full_term_by_the_trusted_clock_and_not_an_hour_less(
    repository: Repository, forgotten: Revision, image: Path, clock: Clock
) -> None:
    assert forgotten.state.forgotten is not None
    # a jump of the clock alone is not believed: this machine was not up for so long
    assert purge(repository, Events(), lambda: clock.now + 30 * DAY).files == 0
    assert in_trash(repository) == [forgotten]
    aged = forgotten.changed(forgotten=forgotten.state.forgotten - 7 * DAY + timedelta(hours=20))
    repository.records.write_state(aged)
    assert purge(repository, Events(), clock).files == 0
    repository.records.write_state(aged.changed(forgotten=forgotten.state.forgotten - 7 * DAY))
    assert purge(repository, Events(), clock).files > 0
    assert not list(repository.directory.glob(f"{forgotten.id}*"))


def test_a_trash_that_keeps_nothing(repository: Repository, clock: Clock) -> None:
    repository.write_config(msgspec.structs.replace(repository.config, trash=Duration(0)))
    first = Backup(repository, ("daily",), clock=clock).run()
    Backup(repository, ("daily",), clock=clock).run()
    forget(repository, [first.id], events=Events())
    assert not list(repository.directory.glob(f"{first.id}*"))


def test_what_is_in_the_trash_is_forgotten_only_once(repository: Repository, forgotten: Revision) -> None:
    with pytest.raises(RevisionNotFoundError, match="in the trash"):
        forget(repository, [forgotten.id], events=Events())
    with pytest.raises(RevisionNotFoundError, match="no revisions in the trash answer to 'nope'"):
        undelete(repository, "nope", events=Events())


def test_what_a_person_may_forget_is_counted_by_a_week_whatever_the_trash_keeps(repository: Repository) -> None:
    repository.write_config(msgspec.structs.replace(repository.config, trash=Duration(days=30)))
    for _ in range(7):
        Backup(repository, ("daily",)).run()
    forget(repository, ["1", "2", "3"], events=Events())
    with pytest.raises(ForgettingRefusedError):
        forget(repository, ["1"], clock=lambda: utc_now() + 6 * DAY, events=Events())
    assert forget(repository, ["1"], clock=lambda: utc_now() + 8 * DAY, events=Events())


def test_the_records_are_read_once_however_many_are_forgotten(
    repository: Repository, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        Backup(repository, ("daily",), clock=clock).run()
    found: list[str] = []
    select = Records.select
    monkeypatch.setattr(Records, "select", lambda *words: found.append(words[2]) or select(*words))
    forget(repository, ["1", "2", "3"], clock=clock, events=Events())
    assert len(found) == 3
    assert all(surveyed is found[0] for surveyed in found)


def test_its_chunks_outlive_a_conversion(repository: Repository, forgotten: Revision) -> None:
    before = content(repository, forgotten)
    Conversion(repository, "chunked", {"name": "others"}).run()
    assert not (repository.directory / "chunks").exists()
    back = undelete(repository, forgotten.id, events=Events())
    assert content(repository, back) == before


def test_nothing_goes_if_one_plugin_can_not_answer_for_the_last(
    repository: Repository, forgotten: Revision, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Backup(repository, ("daily",), clock=clock).run()
    forget(repository, ["last"], clock=clock, events=Events())
    asked: list[object] = []

    def ask(*_: object, **about: object) -> None:
        asked.append(about["revision"])
        if len(asked) == 2:
            raise PluginError("it can not answer")

    events = Events()
    monkeypatch.setattr(events, "ask", ask)
    with pytest.raises(PluginError, match="can not answer"):
        purge(repository, events, clock, everything=True)
    assert len(asked) == len(in_trash(repository)) == 2
