from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE
from backy.backup.backup import Backup
from backy.errors import DamageError, RepositoryBusyError, RevisionNotFoundError
from backy.groups.forget import forget
from backy.integrity import quarantine
from backy.integrity.damage import Judge, chunk_ids, distrust, distrusted, repair_or_distrust, whole_again
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.scrubbing.scrub import Scrub, verify_all
from backy.system.locking import BACKUP_LOCK, PURGE_LOCK, exclusive
from tests.revisions import variant


def nothing(_length: int) -> None:
    pass


@pytest.fixture
def stored(repository: Repository) -> Repository:
    """Two revisions of the same five chunks."""
    for _ in range(2):
        Backup(repository, ("daily",)).run()
    return repository


def chunk_file(repository: Repository, index: int) -> Path:
    name = repository.records.read_map(repository.records.history()[0])[index].hex()
    return repository.directory / "chunks" / name[:2] / f"{name}.zst"


def states(repository: Repository) -> list[tuple[Trust, tuple[int, ...]]]:
    return [(revision.trust, revision.damaged) for revision in repository.records.history()]


def test_a_sound_revision_is_verified_and_no_other(stored: Repository) -> None:
    Judge(stored).verify(stored.records.history()[0])

    assert states(stored) == [(Trust.VERIFIED, ()), (Trust.TRUSTED, ())]


def test_damage_in_one_revision_distrusts_all_that_share_it(stored: Repository) -> None:
    chunk_file(stored, 2).unlink()

    judged = Judge(stored).verify(stored.records.history()[0])

    assert judged.damaged == (2, 3)
    assert states(stored) == [(Trust.DISTRUSTED, (2, 3))] * 2
    assert quarantine.count(stored.directory) == 1


def test_to_verify_needs_the_lock_for_records_only_at_its_end(stored: Repository) -> None:
    reached = threading.Event()

    def progress(_length: int) -> None:
        with pytest.raises(RepositoryBusyError), exclusive(stored.directory, PURGE_LOCK):
            pass
        reached.set()

    with ThreadPoolExecutor(1) as pool:
        with exclusive(stored.directory, BACKUP_LOCK):
            verifying = pool.submit(Judge(stored, steps=lambda *_: progress).verify, stored.records.history()[0])
            assert reached.wait(60)
            with pytest.raises(TimeoutError):
                verifying.result(timeout=0.2)
            assert stored.records.history()[0].trust is Trust.TRUSTED
        assert verifying.result(timeout=60).trust is Trust.VERIFIED


def test_what_a_backup_repaired_meanwhile_is_not_damaged(stored: Repository) -> None:
    path = chunk_file(stored, 0)
    content = path.read_bytes()
    path.unlink()
    seen: list[int] = []

    def progress(length: int) -> None:
        seen.append(length)
        if len(seen) == 4:
            path.write_bytes(content)

    assert Judge(stored, steps=lambda *_: progress).verify(stored.records.history()[0]).trust is Trust.VERIFIED
    assert quarantine.count(stored.directory) == 0


@pytest.mark.parametrize("suspect", [False, True])
@pytest.mark.parametrize("reader", ["scrub", "operator"])
def test_a_doubt_that_came_while_all_was_read_is_not_lifted_by_it(
    stored: Repository, clock, *, suspect: bool, reader: str
) -> None:
    """Not even of a suspect revision, whose state does not tell of damage."""
    revision = stored.records.history()[0]
    if suspect:
        revision = distrusted(stored, revision)
    begun: list[str] = []

    def steps(name: str, total: int) -> Callable[[int], None]:
        begun.append(name)
        left = [total]

        def progress(length: int) -> None:
            left[0] -= length
            # the first chunk was sound
            if len(begun) == 1 and left[0] == CHUNK_SIZE:
                if reader == "operator":
                    distrust(stored, revision.id)
                    return
                chunk_file(stored, 0).unlink()
                Scrub(stored, deep=False, clock=clock).run()

        return progress

    judged = Judge(stored, steps=steps).verify(revision)
    assert stored.records.read(revision.id) == judged
    if reader == "operator":
        # all of it was read since; of a revision that was suspect before, no second doubt is written down
        assert (len(begun), judged.trust) == (1 if suspect else 2, Trust.VERIFIED)
    else:
        assert (len(begun), judged.trust, judged.damaged) == (2, Trust.DISTRUSTED, (0,))


def test_a_revision_with_a_damaged_map_can_not_be_verified(stored: Repository) -> None:
    stored.records.map_path(stored.records.history()[0].id).unlink()

    with pytest.raises(DamageError, match="is missing"):
        Judge(stored).verify(stored.records.history()[0])


def test_a_mark_that_changes_nothing_writes_nothing(stored: Repository) -> None:
    revision = distrusted(stored, stored.records.history()[0], [3, 1, 3])
    state = stored.records.state_path(revision.id)
    written = state.stat().st_ino

    assert distrusted(stored, revision, [1, 3]).damaged == (1, 3)
    assert state.stat().st_ino == written
    whole_again(stored, whole_again(stored, revision))
    assert stored.records.history()[0].damaged == ()


def test_a_revision_that_can_not_be_dealt_with_hinders_no_other(
    stored: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    bad = stored.records.read_map(stored.records.history()[0])[0]
    chunk_file(stored, 0).unlink()
    stored.records.map_path(stored.records.history()[0].id).unlink()

    assert repair_or_distrust(stored, {bad}) == [stored.records.history()[1].id]
    assert f"revision {stored.records.history()[0].id} can not be looked at" in caplog.text


def test_sound_chunks_distrust_nothing(stored: Repository) -> None:
    assert repair_or_distrust(stored, stored.records.read_map(stored.records.history()[0]).distinct()) == []
    assert repair_or_distrust(stored, chunk_ids([])) == []
    assert states(stored) == [(Trust.TRUSTED, ())] * 2


def test_a_damaged_chunk_is_looked_at_once_for_all_revisions(
    stored: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backy_storages_chunked.files import ChunkReader

    bad = stored.records.read_map(stored.records.history()[0])[2]
    chunk_file(stored, 2).unlink()
    looks: list[bytes] = []
    read = ChunkReader.read

    def counted(reader: ChunkReader, index: int, chunk_id: bytes) -> bytes:
        looks.append(chunk_id)
        return read(reader, index, chunk_id)

    monkeypatch.setattr(ChunkReader, "read", counted)

    assert len(repair_or_distrust(stored, {bad})) == 2
    assert looks == [bad]


def look_again(repository: Repository) -> None:
    Judge(repository).recheck()


def test_one_doubted_revision_a_night_is_read_the_newest_first(stored: Repository) -> None:
    for revision in stored.records.history():
        distrusted(stored, revision)

    look_again(stored)
    assert [trust for trust, _ in states(stored)] == [Trust.DISTRUSTED, Trust.VERIFIED]
    look_again(stored)
    assert [trust for trust, _ in states(stored)] == [Trust.VERIFIED, Trust.VERIFIED]


def test_the_damage_of_all_revisions_is_looked_at_every_night(
    stored: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    content = chunk_file(stored, 0).read_bytes()
    chunk_file(stored, 0).unlink()
    Judge(stored).verify(stored.records.history()[0])

    caplog.clear()
    look_again(stored)
    assert caplog.text.count("is distrusted: 1 of its chunks is damaged, the first is chunk 0") == 2
    assert states(stored) == [(Trust.DISTRUSTED, (0,))] * 2

    chunk_file(stored, 0).write_bytes(content)
    look_again(stored)
    assert states(stored) == [(Trust.TRUSTED, ())] * 2


@pytest.mark.parametrize("damaged", [False, True])
def test_a_second_look_judges_what_a_revision_is_now(stored: Repository, *, damaged: bool) -> None:
    if damaged:
        content = chunk_file(stored, 0).read_bytes()
        chunk_file(stored, 0).unlink()
        Judge(stored).verify(stored.records.history()[0])
        chunk_file(stored, 0).write_bytes(content)
    else:
        distrusted(stored, stored.records.history()[1])
    before = stored.records.history()
    for revision in before:
        stored.records.change(revision, tags=("manual:since",))

    Judge(stored).recheck(before)

    assert {revision.tags for revision in stored.records.history()} == {("manual:since",)}
    assert not any(revision.state.distrusted for revision in stored.records.history())


def test_the_progress_of_a_second_look_is_shown_in_full(stored: Repository) -> None:
    distrusted(stored, stored.records.history()[0])
    shown: list[int] = []
    begun: list[tuple[str, int]] = []

    def steps(name: str, total: int) -> Callable[[int], None]:
        begun.append((name, total))
        return shown.append

    Judge(stored, steps=steps).recheck()

    size = stored.records.history()[0].size
    assert begun == [("recheck", size)]
    assert 0 < sum(shown) <= size


@pytest.mark.parametrize("damaged", [(), (0,)])
def test_whatever_is_wrong_with_an_old_revision_is_told_and_no_error(
    stored: Repository, caplog: pytest.LogCaptureFixture, damaged: tuple[int, ...]
) -> None:
    revision: Revision = distrusted(stored, stored.records.history()[0])
    if damaged:
        distrusted(stored, revision, damaged)
    stored.records.map_path(revision.id).unlink()

    look_again(stored)

    assert f"revision {revision.id} can not be looked at" in caplog.text


def test_the_evidence_of_much_damage_does_not_stay_in_memory(
    stored: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backy.integrity.damage import damaged_chunks

    monkeypatch.setattr("backy.integrity.damage.MOST_FINDINGS", 1)
    for index in (0, 2, 4):
        path = chunk_file(stored, index)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    revision = stored.records.history()[0]
    with stored.open_image(revision) as image:
        found = damaged_chunks(image, image.chunks.data(), nothing)

    assert list(found) == [0, 2, 3, 4]
    assert [error.evidence is not None for error in found.values()] == [True, False, False, False]
    assert [error.__traceback__ is not None for error in found.values()] == [True, False, False, False]


@pytest.fixture
def days(stored: Repository) -> Repository:
    """The same revisions, made a second before midnight UTC of the first and the second of May."""
    for day, revision in enumerate(stored.records.history(), 1):
        time = datetime(2027, 5, day, 23, 59, 59, tzinfo=UTC)
        stored.records.add(variant(revision, timestamp=time))
    return stored


FIRST, SECOND = date(2027, 5, 1), date(2027, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {0, 1}),
        ({"specification": "1"}, {0}),
        ({"first": SECOND}, {1}),
        ({"last": FIRST}, {0}),
        ({"first": FIRST, "last": SECOND}, {0, 1}),
        ({"first": SECOND, "last": FIRST}, set()),
        ({"specification": "1", "first": SECOND}, set()),
    ],
)
def test_what_is_named_is_distrusted_and_returned(days: Repository, arguments: dict, expected: set[int]) -> None:
    distrusted = distrust(days, **arguments)

    assert distrusted == [revision for revision in days.records.history() if revision.trust is Trust.DISTRUSTED]
    assert {number for number, (trust, _) in enumerate(states(days)) if trust is Trust.DISTRUSTED} == expected


def test_nothing_is_distrusted_while_a_backup_runs(stored: Repository) -> None:
    with exclusive(stored.directory, BACKUP_LOCK), pytest.raises(RepositoryBusyError):
        distrust(stored)
    assert states(stored) == [(Trust.TRUSTED, ())] * 2


def test_without_a_name_the_distrusted_revisions_are_verified_and_no_other(stored: Repository) -> None:
    assert verify_all(stored, None, lambda _: pytest.fail("nothing is distrusted")) == 0
    distrust(stored, "1")
    told: list[Revision | str] = []

    assert verify_all(stored, None, told.append) == 1
    assert told == [stored.records.history()[0]]
    assert states(stored) == [(Trust.VERIFIED, ()), (Trust.TRUSTED, ())]


def test_a_revision_that_is_named_is_verified_whatever_is_thought_of_it(stored: Repository) -> None:
    assert verify_all(stored, "0", lambda _: None) == 1
    assert states(stored) == [(Trust.TRUSTED, ()), (Trust.VERIFIED, ())]


def test_all_revisions_are_judged_before_the_damage_of_any_is_raised(stored: Repository) -> None:
    old, new = distrust(stored)
    stored.records.map_path(old.id).unlink()
    told: list[Revision | str] = []

    with pytest.raises(DamageError, match=f"{old.id}.map is missing.*; 'backy reports list' tells more$"):
        verify_all(stored, None, told.append)
    assert [one.id for one in told] == [new.id]


def test_every_damaged_revision_is_named(stored: Repository) -> None:
    old, new = distrust(stored)
    chunk_file(stored, 2).unlink()
    told: list[Revision | str] = []

    with pytest.raises(DamageError, match=f"revision {old.id} has 2 damaged chunks; revision {new.id} has 2"):
        verify_all(stored, None, told.append)
    assert told == stored.records.history()


def test_one_of_many_that_is_forgotten_meanwhile_is_told_and_no_error(stored: Repository) -> None:
    old, new = distrust(stored)
    told: list[Revision | str] = []

    def tell(judged: Revision | str) -> None:
        told.append(judged)
        if len(told) == 1:
            forget(stored, [new.id], "a test", force=True)

    assert verify_all(stored, None, tell) == 2
    assert told == [stored.records.read(old.id), f"revision {new.id} was forgotten meanwhile"]


def test_what_is_removed_between_its_record_and_its_map_is_not_called_damaged(stored: Repository, monkeypatch) -> None:
    current = Records.current

    def removing(records: Records, revision: Revision) -> Revision:
        found = current(records, revision)
        Repository.open(records.directory).remove(revision.id)
        return found

    monkeypatch.setattr(Records, "current", removing)
    with pytest.raises(RevisionNotFoundError, match="was forgotten meanwhile"):
        verify_all(stored, "0", lambda _: None)


def test_the_one_that_was_asked_for_is_missed_if_it_is_forgotten_meanwhile(stored: Repository) -> None:
    def steps(_name: str, _total: int) -> Callable[[int], None]:
        forget(stored, ["0"], "a test", force=True)
        return nothing

    with pytest.raises(RevisionNotFoundError, match="was forgotten meanwhile"):
        verify_all(stored, "0", lambda _: None, steps=steps)
