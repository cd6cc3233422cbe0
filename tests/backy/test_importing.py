from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, BackyError, ConfigError, Extent, Image
from backy.backup.backup import Backup
from backy.importing import Original, import_image
from backy.repository.repository import Repository
from backy.repository.revision import Wrong


class Patched:
    """An import of two chunks over those of an image; it counts what is read of it."""

    def __init__(self, base: str | None = None, name: str | None = None, seed: int = 7) -> None:
        self.base = base
        self.name = name
        self.size = 0
        self.read = 0
        self._patch = random.Random(seed).randbytes(2 * CHUNK_SIZE)
        self._base: Image | None = None

    def snapshot(self, base: Image | None) -> Patched:
        self._base = base
        self.size = base.size if base else len(self._patch)
        return self

    def extents(self) -> list[Extent]:
        return [Extent(0, self.size, data=True)]

    def changes(self) -> list[Extent] | None:
        return [Extent(0, len(self._patch), data=True)] if self._base else None

    def pread(self, offset: int, length: int) -> bytes:
        self.read += length
        own = self._patch[offset : offset + length]
        return own or self._base.pread(offset, length)  # type: ignore[union-attr]  # longer only if there is one

    def over(self, content: bytes) -> bytes:
        return self._patch + content[len(self._patch) :]


@pytest.fixture
def first(repository: Repository):
    """The first revision, which is of the source."""
    return Backup(repository, ("daily",)).run()


@pytest.fixture
def content(repository: Repository) -> Iterator[Callable[[str], bytes]]:
    """Read a revision."""

    def read(identity: str) -> bytes:
        with repository.image(repository.records.read(identity)) as image:
            return image.pread(0, image.size)

    return read


def test_a_whole_image_needs_no_revision(repository: Repository, content) -> None:
    whole = Patched(name="s1")
    revision = import_image(repository.directory, whole, ("manual:import",))

    assert (revision.parent, revision.tags, revision.snapshot) == (None, ("manual:import",), "s1")
    assert str(revision.verification) == "verified"
    assert content(revision.id) == whole.over(b"")


def test_a_difference_from_the_newest_revision_reads_what_differs(
    repository: Repository, first, image: Path, content
) -> None:
    patch = Patched(base=f"backy-{first.id}")
    revision = import_image(repository.directory, patch, ())

    assert revision.parent == first.id
    assert revision.statistics is not None
    assert revision.statistics.bytes_read == 2 * CHUNK_SIZE
    assert content(revision.id) == patch.over(image.read_bytes())


def test_a_difference_from_an_older_revision_is_read_as_a_whole(
    repository: Repository, first, image: Path, content
) -> None:
    between = import_image(repository.directory, Patched(seed=1), ())
    patch = Patched(base=f"backy-{first.id}", seed=2)
    revision = import_image(repository.directory, patch, ())

    assert revision.parent == between.id
    assert revision.statistics is not None
    assert revision.statistics.bytes_read == image.stat().st_size
    assert content(revision.id) == patch.over(image.read_bytes())


def test_imports_follow_each_other_by_the_names_of_their_snapshots(repository: Repository, content) -> None:
    patches = [Patched(name="s1", seed=1), Patched("s1", "s2", 2), Patched("s2", "s1", 3), Patched("s1", None, 4)]
    revisions = [import_image(repository.directory, patch, ()) for patch in patches]

    assert [revision.parent for revision in revisions] == [None, *(revision.id for revision in revisions[:-1])]
    assert [revision.snapshot for revision in revisions] == ["s1", "s2", "s1", None]
    assert content(revisions[-1].id) == patches[-1].over(b"")


@pytest.mark.parametrize("base", ["backy-", "s2", "backy-nonesuch", ""])
def test_a_difference_from_what_is_not_there_makes_nothing(repository: Repository, first, base: str) -> None:
    with pytest.raises(BackyError, match=f"differs from the snapshot '{base}', of which there is no revision"):
        import_image(repository.directory, Patched(base=base, name="s2"), ())
    assert repository.records.survey() == ([first], [])


def test_a_distrusted_revision_is_not_built_upon(repository: Repository, first, backy) -> None:
    assert backy("-b", repository.directory, "distrust", "-r", "0").code == 0

    with pytest.raises(BackyError, match=f"revision {first.id} is distrusted, .*: 'backy verify' looks at it"):
        import_image(repository.directory, Patched(base=f"backy-{first.id}"), ())

    # what is wrong no verification of what is stored lifts
    repository.records.write_state(first.changed(wrong=Wrong((0,), first.timestamp)))
    with pytest.raises(BackyError, match=f"revision {first.id} is wrong in 1 chunk: .*: import a whole image"):
        import_image(repository.directory, Patched(base=f"backy-{first.id}"), ())
    assert [revision.id for revision in repository.records.history()] == [first.id]


def test_id_and_time_are_those_of_the_original(repository: Repository) -> None:
    taken = datetime(2019, 5, 6, 7, 8, 9, tzinfo=UTC)
    made = import_image(repository.directory, Patched(), (), original=Original("2019-id-of-backy2", taken))
    assert (made.id, made.timestamp) == ("2019-id-of-backy2", taken)
    assert repository.records.read("2019-id-of-backy2").info == made


@pytest.mark.parametrize(
    ("original", "problem"),
    [
        (Original("short"), "'short' can not be the id of a revision"),
        (Original("../../etc/x"), "can not be the id"),
        (Original(timestamp=datetime(2019, 5, 6)), "has no time zone"),  # noqa: DTZ001  # that is the mistake
    ],
)
def test_an_original_that_can_not_be_is_refused(repository: Repository, original: Original, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        import_image(repository.directory, Patched(), (), original=original)
    assert repository.records.history() == []


def test_an_id_that_is_taken_is_refused(repository: Repository, first) -> None:
    with pytest.raises(ConfigError, match=f"has a revision {first.id} already"):
        import_image(repository.directory, Patched(), (), original=Original(first.id))
    assert [one.id for one in repository.records.history()] == [first.id]


def test_an_imported_image_may_say_what_it_is_like(repository: Repository) -> None:
    whole = Patched()
    assert import_image(repository.directory, whole, ("manual:import",)).consistency == "unknown"
    whole.consistency = "guest"
    assert import_image(repository.directory, whole, ("manual:import",)).consistency == "guest"
    # a record with another word could not be read again
    whole.consistency = "good"
    with pytest.raises(BackyError, match="calls its image 'good'; it is one of guest, crash, none, unknown"):
        import_image(repository.directory, whole, ("manual:import",))


def test_an_import_takes_the_time_that_it_is_given_and_is_the_newest(repository: Repository, first) -> None:
    old = datetime(2020, 1, 1, tzinfo=UTC)
    made = import_image(repository.directory, Patched(), ("manual:import",), original=Original(None, old))
    record = repository.records.read(made.id).record

    assert (record.timestamp, record.trusted_time, record.boot, record.boottime) == (old, old, None, None)
    assert repository.records.select("last").id == made.id
    assert made.seq == first.seq + 1
    # the trusted time goes on from that of the backup before, not from that of the old image
    assert Backup(repository, ("daily",)).run().trusted_time >= first.trusted_time
