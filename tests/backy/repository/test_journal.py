"""The file of the journal: what is on the disk at any time, and what comes after a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.answers.replay import findings, replay
from backy.errors import UnreadError
from backy.repository.journal import BEGIN, JOURNAL, Fact, Journal, Step, digest, fact_of, facts_of
from backy.standalone import audit
from tests.unread import fail_to_read

RECORD, STATE = b"record", b"state"
FACT = Fact(digest(RECORD), digest(STATE))
NAME = "revision-1"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path)
    journal.declare(BEGIN, "job", {})
    return journal


def write(directory: Path, name: str = NAME) -> None:
    (directory / f"{name}.state").write_bytes(STATE)
    (directory / f"{name}.rev").write_bytes(RECORD)


def steps(journal: Journal) -> list[tuple[str, Step]]:
    return [(line.act, line.step) for line, _ in journal.read() if line]


def test_it_tells_what_is_intended_before_it_is_done(journal: Journal, tmp_path: Path) -> None:
    with journal.act("backup", NAME, FACT):
        assert steps(journal) == [(BEGIN, Step.DONE), ("backup", Step.INTENDED)]
        assert findings(journal.read(), {}) == []
        write(tmp_path)
        assert findings(journal.read(), facts_of(tmp_path)) == []
    assert steps(journal)[2:] == [("backup", Step.DONE)]
    assert replay(journal.read()).told == {NAME: [(FACT.record, FACT.state)]}


@pytest.mark.parametrize("done", [True, False])
def test_the_next_line_tells_what_came_of_an_act_that_failed(journal: Journal, tmp_path: Path, *, done: bool) -> None:
    def fail() -> None:
        with journal.act("backup", NAME, FACT):
            if done:
                write(tmp_path)
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert findings(journal.read(), facts_of(tmp_path)) == []
    with journal.act("backup", "revision-2", FACT):
        write(tmp_path, "revision-2")
    assert steps(journal)[2:] == [
        ("backup", Step.DONE if done else Step.DROPPED),
        ("backup", Step.INTENDED),
        ("backup", Step.DONE),
    ]
    assert findings(journal.read(), facts_of(tmp_path)) == []


def test_every_torn_end_is_as_if_the_line_had_not_been_written(journal: Journal, tmp_path: Path) -> None:
    whole = (tmp_path / JOURNAL).read_bytes()
    with journal.act("backup", NAME, FACT):
        intended = (tmp_path / JOURNAL).read_bytes()
    for size in range(len(whole), len(intended)):
        (tmp_path / JOURNAL).write_bytes(intended[:size])
        assert findings(journal.read(), {}) == []
        journal.declare("note", None, {})
        assert steps(journal) == [(BEGIN, Step.DONE), ("note", Step.DONE)]
        assert findings(journal.read(), {}) == []


def test_a_torn_line_of_any_length_leaves_the_number_and_the_line_before(journal: Journal, tmp_path: Path) -> None:
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"act":"' + b"x" * 100_000)
    journal.declare("note", None, {})
    assert [line and line.number for line, _ in journal.read()] == [1, 2]
    assert findings(journal.read(), {}) == []


def test_a_damaged_last_line_stops_nobody_and_is_told(journal: Journal, tmp_path: Path) -> None:
    with journal.act("backup", NAME, FACT):
        write(tmp_path)
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes()[:-20] + b"\n")
    with journal.act("backup", "revision-2", FACT):
        write(tmp_path, "revision-2")
    # line 3 was to say that the act is done, so nothing tells it
    assert findings(journal.read(), facts_of(tmp_path)) == [
        "line 3 is damaged",
        "line 2: nothing tells whether 'backup' was done",
        f"revision {NAME} is there, and the journal does not know of it",
    ]


def test_a_reason_of_any_length_is_a_line(journal: Journal) -> None:
    journal.declare("note", "x" * 100_000, {})
    journal.declare("note", None, {})
    assert findings(journal.read(), {}) == []
    assert len(journal.read()) == 3


def test_room_is_allocated_ahead(journal: Journal, tmp_path: Path) -> None:
    status = (tmp_path / JOURNAL).stat()
    if status.st_blocks * 512 < 64 * 1024:
        pytest.fail("the file system of the tests can not allocate ahead; choose another one by --basetemp")
    assert status.st_mode & 0o777 == 0o640


def test_what_is_adopted_counts_from_then_on(journal: Journal, tmp_path: Path) -> None:
    write(tmp_path)
    assert findings(journal.read(), facts_of(tmp_path)) != []
    journal.declare("adopt", "restored from a snapshot", facts_of(tmp_path))
    assert findings(journal.read(), facts_of(tmp_path)) == []
    (tmp_path / f"{NAME}.rev").unlink()
    assert findings(journal.read(), facts_of(tmp_path)) == [
        f"revision {NAME} is gone, and nothing in the journal removed it"
    ]


def test_no_journal_is_told(tmp_path: Path) -> None:
    assert Journal(tmp_path).read() == []
    assert findings([], {}) == ["there is no journal"]


def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    assert fact_of(tmp_path, NAME) == Fact()


def test_an_act_on_what_somebody_changed_does_not_make_it_right(journal: Journal, tmp_path: Path) -> None:
    with journal.act("backup", NAME, FACT):
        write(tmp_path)
    head = replay(journal.read()).head
    assert head
    (tmp_path / f"{NAME}.rev").write_bytes(b"forged")
    forged = Fact(digest(b"forged"), digest(b"tagged"))
    with journal.act("tags", NAME, forged):
        (tmp_path / f"{NAME}.state").write_bytes(b"tagged")
    assert findings(journal.read(), facts_of(tmp_path), [head]) == [
        f"line 4: {NAME} was not what was written last, before 'tags'"
    ]


@pytest.mark.parametrize("done", [True, False])
def test_an_act_on_what_can_not_be_read_stops_no_other_and_may_have_been_done(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, done: bool
) -> None:
    monkeypatch.setattr(audit, "REPOSITORY", tmp_path)
    tagged, state = Fact(digest(RECORD), digest(b"tagged")), tmp_path / f"{NAME}.state"

    def found() -> list[str]:
        told = findings(journal.read(), facts_of(tmp_path))
        assert audit.audit() == told, "without backy it is the same"
        return told

    def fail() -> None:
        with journal.act("tags", NAME, tagged):
            if done:
                state.write_bytes(b"tagged")
            raise OSError("disk")

    with journal.act("backup", NAME, FACT):
        write(tmp_path)
    with pytest.raises(OSError, match="disk"):
        fail()
    with monkeypatch.context() as patch:
        fail_to_read(patch, f"{NAME}.state")
        with journal.act("backup", "revision-2", FACT):
            write(tmp_path, "revision-2")
        assert found() == [f"{NAME}.state can not be read: Input/output error"]
    assert steps(journal)[3:5] == [("tags", Step.INTENDED), ("tags", Step.UNKNOWN)]
    assert found() == []

    there = state.read_bytes()
    state.write_bytes(b"forged")
    assert found() == [f"{NAME}.state is not the one that was written last"]
    state.write_bytes(there)
    with journal.act("tags", NAME, Fact(digest(RECORD), digest(b"new"))):
        state.write_bytes(b"new")
    assert found() == [], "what was before that act is one of the two"
    state.write_bytes(there)
    assert found() == [f"{NAME}.state is not the one that was written last"], "which bind nobody any more"


def test_a_new_revision_that_can_not_be_read_is_known_to_the_journal(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "REPOSITORY", tmp_path)
    fail_to_read(monkeypatch, f"{NAME}.state")
    told = [f"{NAME}.state can not be read: Input/output error"]
    with journal.act("backup", NAME, FACT):
        write(tmp_path)
        assert findings(journal.read(), facts_of(tmp_path)) == told
    assert findings(journal.read(), facts_of(tmp_path)) == audit.audit() == told


def test_what_is_gone_or_another_one_was_not_done_whatever_can_be_read(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fact: Fact) -> None:
        with journal.act("remove", NAME, fact):
            raise OSError("disk")

    with journal.act("backup", NAME, FACT):
        write(tmp_path)
    fail_to_read(monkeypatch, f"{NAME}.state")
    for fact in (Fact(), Fact(digest(b"another"), digest(STATE))):
        with pytest.raises(OSError, match="disk"):
            fail(fact)
        journal.declare("note", None, {})
        assert steps(journal)[-2] == ("remove", Step.DROPPED)


def test_what_can_not_be_read_is_declared_by_nobody(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with journal.act("backup", NAME, FACT):
        write(tmp_path)
    before = journal.read()
    fail_to_read(monkeypatch, f"{NAME}.state")
    with pytest.raises(UnreadError, match="nobody can tell if it is right"):
        journal.declare("adopt", None, facts_of(tmp_path))
    monkeypatch.undo()
    assert journal.read() == before


def test_who_does_not_wait_gets_nothing_while_somebody_writes(journal: Journal) -> None:
    with journal.act("backup", NAME, FACT), journal.reading(wait=False) as lines:
        assert lines is None
    with journal.reading(wait=False) as lines:
        assert lines
