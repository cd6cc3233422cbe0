from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.backup.backup import Backup
from backy.errors import DamageError, RecordDamageError, RevisionNotFoundError, UnreadError
from backy.repository.records import Records
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust, Wrong
from backy.retention.purge import purge
from tests.revisions import variant
from tests.unread import fail_to_read


@pytest.fixture
def back_up(repository: Repository, clock) -> Callable[[], Revision]:
    return Backup(repository, ("test",), clock=clock).run


def test_records_are_read_without_a_config(repository: Repository, back_up) -> None:
    revision = back_up()
    (repository.directory / "config").unlink()

    records = Records(repository.directory)
    assert records.history() == [revision]
    assert records.select("last") == records.read(revision.id) == records.current(revision) == revision
    assert records.read_map(revision).size == revision.size
    assert records.mapped() == {revision.id}


def test_records_need_neither_a_repository_nor_plugins() -> None:
    above = "('backy.repository.repository', 'backy.plugins', 'pluggy')"
    program = f"import sys, backy.repository.records; print([name for name in sys.modules if name.startswith({above})])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_place_without_anything_has_no_records(tmp_path: Path) -> None:
    assert Records(tmp_path / "missing").survey() == ([], [])


def test_a_forgotten_revision_is_told_from_a_damaged_one(repository: Repository, back_up) -> None:
    revision = back_up()
    records = repository.records
    records.record_path(revision.id).chmod(0o600)
    records.record_path(revision.id).write_text("torn")
    with pytest.raises(DamageError, match=f"{revision.id}.rev is not a file of backy 3"):
        records.current(revision)

    records.record_path(revision.id).unlink()
    with pytest.raises(RevisionNotFoundError, match=f"{revision.id} was forgotten meanwhile"):
        records.current(revision)
    with pytest.raises(FileNotFoundError):
        records.read(revision.id)


def test_a_map_has_to_be_the_one_that_the_record_names(repository: Repository, back_up) -> None:
    revision = back_up()
    with pytest.raises(DamageError, match=rf"\.map is not the chunk map that {revision.id}\.rev names"):
        repository.records.read_map(variant(revision, size=revision.size + 1))


def test_a_map_that_can_not_be_read_now_is_there(repository: Repository, back_up, monkeypatch) -> None:
    revision = back_up()
    with monkeypatch.context() as patch:
        fail_to_read(patch, f"{revision.id}.map")
        assert repository.records.has_map(revision)
    repository.records.map_path(revision.id).unlink()
    assert not repository.records.has_map(revision)


def test_no_state_is_replaced_while_its_record_can_not_be_read(repository: Repository, back_up, monkeypatch) -> None:
    revision = back_up()
    before = repository.records.journal.read()
    with monkeypatch.context() as patch:
        fail_to_read(patch, f"{revision.id}.rev")
        with pytest.raises(RecordDamageError, match=rf"{revision.id}\.rev can not be read: ") as refused:
            repository.records.change(revision, distrusted=True)
        assert refused.value.unread
        with pytest.raises(UnreadError, match=rf"{revision.id}\.rev can not be read: .*, so its state is not replaced"):
            repository.records.write_state(revision)
    assert repository.records.journal.read() == before
    assert repository.records.history() == [revision]


def test_an_image_is_opened_by_its_record_or_by_a_map_at_hand(repository: Repository, back_up) -> None:
    revision = back_up()
    with repository.open_image(revision) as image, repository.image(revision) as locked:
        assert image.chunk(0) == locked.chunk(0)
        chunks = image.chunks

    repository.records.map_path(revision.id).unlink()
    with repository.open_image(revision, chunks) as image:
        assert image.chunks is chunks
        image.chunk(0)
    with pytest.raises(DamageError, match="is missing"), repository.open_image(revision):
        pass


# the newest one and lost states ---------------------------------------------------------------------------------------


def spoil_record(repository: Repository, revision: Revision) -> None:
    path = repository.records.record_path(revision.id)
    path.chmod(0o600)
    path.write_text("torn")


def test_a_backup_makes_a_damaged_newest_record_an_old_one(repository: Repository, back_up) -> None:
    first, second = back_up(), back_up()
    spoil_record(repository, second)
    with pytest.raises(DamageError, match=f"newest record {second.id} is damaged; -r {first.id} restores the state of"):
        repository.records.select("last")
    assert repository.records.select(first.id) == first
    # an older revision that goes does not make the damaged one an old one
    repository.link_last()
    assert repository.records.linked() == second.id

    third = back_up()
    assert repository.records.linked() == third.id
    assert repository.records.select("last") == repository.records.select("test") == third
    assert repository.records.select("1") == first


@pytest.mark.parametrize("copied", [True, False])
def test_a_link_that_is_none_is_made_anew_unless_a_record_is_damaged(
    repository: Repository, back_up, copied: bool
) -> None:
    first, second = back_up(), back_up()
    link = repository.directory / "last.rev"

    def lose() -> None:
        link.unlink()
        if copied:
            link.write_bytes(repository.records.record_path(second.id).read_bytes())

    lose()
    assert repository.records.survey() == ([first, second], [])
    assert repository.records.select("last") == second
    repository.link_last()
    assert repository.records.linked() == second.id

    lose()
    spoil_record(repository, first)
    repository.link_last()
    assert repository.records.linked() is None
    with pytest.raises(DamageError, match=f"{first.id} is damaged, and 'last.rev' does not tell if it is the newest"):
        repository.records.select("last")
    third = back_up()
    assert repository.records.select("last") == third


def test_without_any_sound_record_nothing_can_be_named(repository: Repository, back_up) -> None:
    only = back_up()
    spoil_record(repository, only)
    with pytest.raises(DamageError, match=f"the newest record {only.id} is damaged; there is no other"):
        repository.records.select("0")


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_revision_without_its_state_is_distrusted_until_it_was_read(
    repository: Repository, back_up, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    revision = back_up()
    path = repository.records.state_path(revision.id)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (found,) = repository.records.history()

    assert (found.suspect, found.tags, found.storage) == (True, ("test",), None)
    assert f"{revision.id}.state is" in caplog.text
    with repository.image(found) as image:
        assert image.size == revision.size
    assert purge(repository).files == 0
    # the next backup relies on nothing of it, reads it, and knows then where it is
    second = back_up()
    assert second.parent is None
    (healed, _) = repository.records.history()
    assert (healed.trust, healed.storage, healed.state_problem) == (Trust.VERIFIED, revision.storage, None)


def test_a_revision_that_goes_between_record_and_state_is_no_lost_state(
    repository: Repository, back_up, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = back_up()

    def gone(_revision_id: str) -> None:
        repository.records.record_path(revision.id).unlink()
        raise DamageError("missing")

    monkeypatch.setattr(repository.records, "read_state", gone)
    assert repository.records.survey() == ([], [])


def test_a_wrong_revision_is_built_upon_where_it_is_right(repository: Repository, back_up) -> None:
    first = back_up()
    repository.records.write_state(first.changed(wrong=Wrong((0,), first.timestamp)))

    second = back_up()
    assert second.parent == first.id
    assert second.trust is Trust.TRUSTED


def test_a_copy_of_a_record_is_no_second_revision(repository: Repository) -> None:
    revision = Backup(repository, ("daily",)).run()
    path = repository.records.record_path(revision.id)
    for name in (f"{revision.id}.bak.rev", "copy of it.rev"):
        shutil.copy(path, path.with_name(name))

    assert repository.records.survey() == ([revision], [])
    assert Backup(repository, ("daily",)).run().parent == revision.id
    assert path.with_name(f"{revision.id}.bak.rev").exists()


# what a source hid ----------------------------------------------------------------------------------------------------


def test_a_wrong_revision_is_taken_by_its_full_id_only(repository: Repository, back_up, caplog) -> None:
    first, second, third = back_up(), back_up(), back_up()
    records = repository.records
    for revision in (second, third):
        records.write_state(revision.changed(wrong=Wrong((0, 3), revision.timestamp)))
    for specification, wrong in (
        ("last", third),
        ("0", third),
        ("1", second),
        ("test", third),
        (second.id[:-1], second),
    ):
        advice = f"-r {wrong.id} takes it as it is, -r {first.id} the state of 2026"
        with pytest.raises(DamageError, match=f"{wrong.id} is wrong in 2 chunks: the source had other .*; {advice}"):
            records.select_image(specification)
        # what only changes records is not hindered
        assert records.select(specification).id == wrong.id
    assert not caplog.records
    assert records.select_image(second.id).id == second.id
    assert f"revision {second.id} is wrong in 2 chunks" in caplog.text
    assert records.select_image("2") == first

    records.write_state(first.changed(distrusted=True))
    with pytest.raises(DamageError, match=f"-r {third.id} takes it as it is$"):
        records.select_image("last")
    assert records.select_image("2").id == first.id
    assert f"revision {first.id} is distrusted, by an operator or for damage that was found" in caplog.text
