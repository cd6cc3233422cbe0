from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.answers.audit import audit
from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.errors import UnreadError
from backy.integrity.seen import Seen, doubt, doubted
from backy.mount.tree import Tree
from backy.repository.journal import JOURNAL
from backy.repository.repository import Repository
from backy.repository.revision import Trust, Wrong
from tests.revisions import make_revision
from tests.unread import fail_to_read

START = datetime(2026, 1, 1, tzinfo=UTC)
BACKUP = st.tuples(st.integers(0, 6), st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.booleans())
"""Chunks of the image, those that were read, those that were compared, and whether it is forgotten later."""


@given(st.lists(BACKUP, max_size=8), st.sets(st.integers(0, 5)))
def test_in_doubt_is_what_took_a_chunk_over_since_it_was_last_seen(backups: list, hidden: set[int]) -> None:
    """Also if the revision in which that was is forgotten."""
    seen, made = Seen(), []
    for number, (total, read, compared, forgotten) in enumerate(backups, 1):
        sizes = total * CHUNK_SIZE
        looked_at = {index for index in read | compared if index < total}
        revision = make_revision(f"revision{number}", START + timedelta(days=number), seq=number * 2, size=sizes)
        seen.note(revision, sizes, read & looked_at, compared & looked_at)
        made.append((revision, looked_at, forgotten))

    # from the newest to the oldest: each is in doubt until one has seen the chunk
    expected: dict[str, list[int]] = {}
    for index in sorted(hidden):
        for revision, looked_at, forgotten in reversed(made):
            if index in looked_at:
                break
            if not forgotten and index * CHUNK_SIZE < revision.size:
                expected.setdefault(revision.id, []).append(index)
    for revision, _, forgotten in made:
        assert forgotten or doubted(revision, hidden, seen.last) == tuple(expected.get(revision.id, ()))


def test_a_doubt_is_written_down_and_adds_to_an_earlier_one(repository: Repository, caplog) -> None:
    size = 4 * CHUNK_SIZE
    first, second, third = (
        make_revision(f"revision{seq}", START + timedelta(days=seq), ["daily"], seq=seq, size=size) for seq in (1, 2, 3)
    )
    for revision in (first, second, third):
        repository.records.add(revision)
    last = {0: 1, 1: 2, 2: 2, 3: 3}
    assert doubt(repository, [0, 1, 3], last.__getitem__, START) == [second.id, third.id]
    assert "the source hid a change of 3 chunks" in caplog.text
    assert f"what they had not read: {second.id}, {third.id}" in caplog.text
    states = [revision.state.wrong for revision in repository.records.history()]
    assert states == [None, Wrong((0,), START), Wrong((0, 1), START)]
    assert repository.records.read(third.id).trust is Trust.WRONG

    later = START + timedelta(days=9)
    assert doubt(repository, [2], last.__getitem__, later) == [third.id]
    assert repository.records.read(third.id).state.wrong == Wrong((0, 1, 2), START)
    acts = [line.act for line, _ in repository.records.journal.read() if line and line.step == "done"]
    assert acts == ["begin", *["backup"] * 3, *["doubt"] * 3]
    assert all(".map is missing" in finding for finding in audit(repository).findings)
    assert repository.records.read(second.id).state.wrong == Wrong((0,), START)
    assert doubt(repository, [], last.__getitem__, later) == doubt(repository, [3], last.__getitem__, later) == []
    # told once
    assert doubt(repository, [0, 2], last.__getitem__, later) == []


@pytest.mark.parametrize("lost", ["missing", "damaged"])
def test_a_wrong_revision_whose_state_is_lost_goes_by_its_id_alone(
    backy: Callable, repository: Repository, tmp_path: Path, lost: str
) -> None:
    first, second, third = (Backup(repository, (tag,)).run() for tag in ("first", "second", "third"))
    assert doubt(repository, [1], lambda _: first.seq, START) == [second.id, third.id]
    for revision in (first, second, third):
        path = repository.records.state_path(revision.id)
        path.unlink()
        if lost == "damaged":
            path.write_bytes(b"{}")
    target = tmp_path / "target"
    for name in ("last", "0", "1", "second", "third"):
        done = backy("-b", repository.directory, "restore", "-r", name, target)
        assert (done.code, target.exists()) == (1, False), name
        assert "is wrong in 5 chunks" in done.err
    assert Tree(repository).find(["last"]) is None
    for name in ("first", second.id, third.id):
        done = backy("-b", repository.directory, "restore", "-r", name, tmp_path / name)
        assert (done.code, (tmp_path / name).exists()) == (0, True)
        assert ("is wrong in 5 chunks" in done.err) == (name != "first")


def test_where_nobody_can_tell_if_a_revision_is_wrong_its_state_is_not_replaced(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = Backup(repository, ("daily",)).run()
    repository.records.state_path(revision.id).unlink()
    with monkeypatch.context() as patch:
        fail_to_read(patch, JOURNAL)
        found = repository.records.read(revision.id)
        assert "state is missing, and 'journal' can not be read" in (found.state_problem or "")
        with pytest.raises(UnreadError):
            repository.records.change(found, distrusted=False)
    assert repository.records.change(repository.records.read(revision.id), distrusted=False).trust is Trust.TRUSTED


def test_no_command_makes_a_wrong_revision_right_whose_state_is_lost(
    backy: Callable, repository: Repository, tmp_path: Path
) -> None:
    first = Backup(repository, ("daily",)).run()
    second = Backup(repository, ("daily",)).run()
    assert doubt(repository, [1], lambda _: first.seq, START) == [second.id]
    for revision in (first, second):
        repository.records.state_path(revision.id).unlink()
    for arguments in (["tags", "add", "-r", second.id, "manual:x"], ["verify"], ["scrub", "deep"], ["backup", "daily"]):
        backy("-b", repository.directory, *arguments)
    states = {one.id: one.state for one in repository.records.history()}
    assert states[second.id].wrong
    assert states[second.id].wrong.chunks == tuple(range(5)), "nobody knows any more which"
    assert states[first.id].wrong is None
    assert (states[first.id].distrusted, repository.records.read(first.id).trust) == (False, Trust.VERIFIED)
    target = tmp_path / "target"
    done = backy("-b", repository.directory, "restore", "-r", "manual:x", target)
    assert (done.code, target.exists()) == (1, False)
    assert "wrong" in done.err
