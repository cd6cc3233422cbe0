"""Every kind of damage in every kind of file: it is found, told, repaired if the source has the content, and no more.

The history has three revisions of an image of nine chunks:

    a, b      the same in all revisions
    c, d      replaced as a whole after the oldest one
    e, f      changed a little after each one: full chunks first, then two deltas on those
    g, h      likewise, but the last deltas take over the pages of those before
    and a short one at the end
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, SourceError
from backy.backup.backup import Backup
from backy.integrity import quarantine
from backy.repository.config import JobConfig, SourceSection
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.repository.sealed import FORMAT

CHUNKS = "abcdefgh"
OLD, MIDDLE, NEW = range(3)
EVERY = {OLD, MIDDLE, NEW}


def content(seed: str) -> bytes:
    """Return a chunk that compresses to 64 KiB."""
    return random.Random(seed).randbytes(64 * 1024).ljust(CHUNK_SIZE, seed[:1].encode())


def write(image: Path, **chunks: bytes) -> None:
    with image.open("r+b") as stream:
        for name, data in chunks.items():
            stream.seek(CHUNKS.index(name) * CHUNK_SIZE)
            stream.write(data)


@dataclass
class Case:
    """A kind of chunk file: which two there are, who refers to them, and whether the source still has them."""

    chunks: str
    revision: int
    referring: set[int]
    repaired: bool


CASES = {
    "current": Case("ab", NEW, EVERY, repaired=True),
    "old": Case("cd", OLD, {OLD}, repaired=False),
    "current delta": Case("ef", NEW, {NEW}, repaired=True),
    "old delta": Case("ef", MIDDLE, {MIDDLE}, repaired=False),
    "base": Case("ef", OLD, EVERY, repaired=False),
    "companion": Case("gh", MIDDLE, {MIDDLE, NEW}, repaired=False),
}


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def flip(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(path, data)


def truncate(path: Path, other: Path) -> None:
    overwrite(path, path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, other: Path) -> None:
    overwrite(path, b"")


def delete(path: Path, other: Path) -> None:
    path.unlink()


def zero(path: Path, other: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 4, len(data) // 2)
    data[middle] = bytes(len(data[middle]))
    overwrite(path, data)


def swap(path: Path, other: Path) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    overwrite(path, theirs)
    overwrite(other, mine)


DAMAGE = {function.__name__: function for function in (flip, truncate, empty, delete, zero, swap)}
SEEN_BY_LIGHT = {"empty", "delete"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("damage")
    image = folder / "disk.img"
    image.write_bytes(b"".join(content(name) for name in CHUNKS) + b"the short one")
    config = JobConfig(format=FORMAT, source=SourceSection({"type": "file", "filename": str(image)}))
    repository = Repository.initialize(folder / "vm", config)
    Backup(repository, ("daily",)).run()
    write(image, c=content("new c"), d=content("new d"), e=b"1" * PAGE_SIZE, f=b"2" * PAGE_SIZE)
    write(image, g=content("g before")[:PAGE_SIZE], h=content("h before")[:PAGE_SIZE])
    Backup(repository, ("daily",)).run()
    # more than the deltas before cost: they are no companions of these
    write(image, e=content("new e")[:PAGE_SIZE], f=content("new f")[:PAGE_SIZE])
    write(image, **{name: content(f"{name} before")[:PAGE_SIZE] + b"1" * PAGE_SIZE for name in "gh"})
    Backup(repository, ("daily",)).run()
    return repository


@pytest.fixture
def repository(made: Repository, tmp_path: Path) -> Repository:
    shutil.copytree(made.directory, tmp_path / "vm", symlinks=True)
    return Repository.open(tmp_path / "vm")


@pytest.fixture
def call(backy: Callable, repository: Repository) -> Callable:
    """Call a command on the repository."""
    return lambda *arguments: backy("-b", repository.directory, *arguments)


def identity(repository: Repository, revision: int, chunk: str) -> str:
    return repository.records.read_map(repository.records.history()[revision])[CHUNKS.index(chunk)].hex()


def chunk_file(repository: Repository, name: str) -> Path:
    (path,) = repository.directory.glob(f"chunks/{name[:2]}/{name}.*")
    return path


def damage(repository: Repository, case: Case, how: str) -> set[str]:
    """Damage chunk files and return the ids of all chunks that can not be read then."""
    first = case.chunks[0]
    paths = [chunk_file(repository, identity(repository, case.revision, name)) for name in case.chunks]
    DAMAGE[how](*paths)
    others = case in (CASES["base"], CASES["companion"])
    revisions = case.referring if others else {case.revision}
    return {
        identity(repository, number, name) for number in revisions for name in (case.chunks if how == "swap" else first)
    }


def distrusted(repository: Repository) -> set[int]:
    return {
        number for number, revision in enumerate(repository.records.history()) if revision.trust is Trust.DISTRUSTED
    }


def ids(repository: Repository, numbers: set[int]) -> list[str]:
    return [revision.id for number, revision in enumerate(repository.records.history()) if number in numbers]


def evidence(repository: Repository, tree: Callable) -> dict:
    return tree(repository.directory / quarantine.FOLDER)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("how", DAMAGE)
def test_a_deep_scrub_finds_all_damage_and_distrusts_what_refers_to_it(
    call: Callable, repository: Repository, tree: Callable, case: Case, how: str
) -> None:
    bad = damage(repository, case, how)

    done = call("scrub", "deep", "--json")
    found = json.loads(done.out)

    assert done.code == 1
    assert {entry["chunk"] for entry in found["damaged"]} == bad
    assert found["distrusted"] == ids(repository, case.referring)
    assert distrusted(repository) == case.referring
    assert next(iter(sorted(bad))) in done.err
    assert {report["chunk_id"] for report in json.loads(call("reports", "list", "--json").out)["reports"]} == bad

    kept = evidence(repository, tree)
    assert call("scrub", "deep").code == 1
    assert evidence(repository, tree) == kept
    assert distrusted(repository) == case.referring
    assert json.loads(call("status", "--json").out)["reports"] == len(bad)


@pytest.mark.parametrize("how", DAMAGE)
def test_a_light_scrub_finds_what_is_missing_or_can_not_be_whole(
    call: Callable, repository: Repository, case: Case, how: str
) -> None:
    bad = damage(repository, case, how)

    done = call("scrub", "light", "--json")
    found = json.loads(done.out)

    seen = how in SEEN_BY_LIGHT
    assert done.code == int(seen)
    assert {entry["chunk"] for entry in found["damaged"]} == (bad if seen else set())
    assert distrusted(repository) == (case.referring if seen else set())


@pytest.mark.parametrize("how", DAMAGE)
def test_verify_judges_each_revision_by_what_it_refers_to(
    call: Callable, repository: Repository, case: Case, how: str
) -> None:
    damage(repository, case, how)
    revisions = repository.records.history()

    codes = [call("verify", "-r", revision.id).code for revision in revisions]

    assert codes == [int(number in case.referring) for number in range(3)]
    assert distrusted(repository) == case.referring
    for number in EVERY - case.referring:
        assert repository.records.history()[number].trust is Trust.VERIFIED


@pytest.mark.parametrize("how", DAMAGE)
def test_a_backup_repairs_what_the_source_still_has(
    call: Callable, repository: Repository, tmp_path: Path, case: Case, how: str
) -> None:
    bad = damage(repository, case, how)

    done = call("backup", "daily")

    assert done.code == 0, done.err
    image = Path(repository.config.source["filename"])
    assert call("restore", tmp_path / "restored").code == 0
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()
    if case.repaired:
        assert "repaired from the source" in done.err
        reports = json.loads(call("reports", "list", "--json").out)["reports"]
        assert {report["chunk_id"] for report in reports if report["repaired"]} == bad
        assert distrusted(repository) == set()
        assert call("scrub", "deep").code == 0
    elif NEW in case.referring:
        assert "repaired from the source" in done.err
        # of what fails its checksum it is known who has it; of the other deltas made of it nobody knows yet
        assert distrusted(repository) == (set() if how == "swap" else {case.revision})
        assert call("scrub", "deep").code == 1
        assert distrusted(repository) == case.referring - {NEW}
    else:
        assert done.err == ""
        assert call("scrub", "deep").code == 1


def test_a_missing_base_that_no_revision_refers_to_is_found(call: Callable, repository: Repository) -> None:
    base = chunk_file(repository, identity(repository, OLD, "e"))
    assert call("forget", "-r", repository.records.history()[OLD].id).code == 0
    assert call("purge", "--trash").code == 0
    base.unlink()

    done = call("scrub", "light")

    assert done.code == 1
    assert distrusted(repository) == {0, 1}


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "delete", "zero", "swap"])
def test_a_damaged_map_is_told_and_hinders_no_backup(call: Callable, repository: Repository, how: str) -> None:
    middle, new = repository.records.history()[MIDDLE:]
    DAMAGE[how](repository.records.map_path(middle.id), repository.records.map_path(new.id))

    for mode in ("light", "deep"):
        done = call("scrub", mode)
        assert done.code == 1
        assert f"{middle.id}.map" in done.err
    assert call("verify", "-r", middle.id).code == 1
    done = call("backup", "daily")
    assert done.code == 0, done.err
    assert call("verify", "-r", "0").code == 0
    assert call("verify", "-r", "last").code == 0


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "zero", "swap"])
def test_a_damaged_record_is_told_and_hinders_no_backup(call: Callable, repository: Repository, how: str) -> None:
    middle, new = repository.records.history()[MIDDLE:]
    DAMAGE[how](repository.directory / f"{middle.id}.rev", repository.directory / f"{new.id}.rev")

    for mode in ("light", "deep"):
        done = call("scrub", mode)
        assert done.code == 1
        assert f"{middle.id}.rev" in done.err
    done = call("backup", "daily")
    assert done.code == 0
    assert f"{middle.id}.rev" in done.err
    assert call("verify", "-r", "0").code == 0


def test_a_deleted_record_is_a_revision_less(call: Callable, repository: Repository) -> None:
    (repository.directory / f"{repository.records.history()[MIDDLE].id}.rev").unlink()

    assert call("scrub", "deep").code == 0
    assert call("backup", "daily").code == 0
    assert call("verify", "-r", "0").code == 0


def test_a_sound_repository_stays_as_it_is(call: Callable, repository: Repository, tree: Callable) -> None:
    before = tree(repository.directory)
    for words in (["scrub", "light"], ["scrub", "deep"], ["verify"], ["scrub", "deep", "-r", "1"], ["reports", "list"]):
        done = call(*words)
        assert (done.code, done.err) == (0, ""), words
    after = tree(repository.directory)
    del after[".scrub"]
    assert after == before

    done = call("backup", "daily")
    assert (done.code, done.err) == (0, "")
    assert not distrusted(repository)
    assert not quarantine.count(repository.directory)


def test_every_night_succeeds_and_tells_of_the_damaged_old_chunk_until_its_revision_is_forgotten(
    call: Callable, repository: Repository, tree: Callable
) -> None:
    old = repository.records.history()[OLD]
    (bad,) = damage(repository, CASES["old"], "flip")
    assert call("scrub", "deep").code == 1
    kept = evidence(repository, tree)

    for _ in range(3):
        done = call("backup", "daily")
        assert done.code == 0
        assert f"revision {old.id} is distrusted: 1 of its chunks is damaged, the first is chunk 2 ({bad})" in done.err
        assert evidence(repository, tree) == kept
        assert repository.records.history()[-1].parent is not None

    assert call("forget", "-r", old.id).code == 0
    done = call("backup", "daily")
    assert (done.code, done.err) == (0, "")


def test_what_is_distrusted_is_stored_anew_and_then_verified(call: Callable, repository: Repository) -> None:
    """Even where nothing of the new revision is verified."""
    repository.directory.joinpath("config").chmod(0o600)
    with repository.directory.joinpath("config").open("a") as stream:
        stream.write("verifier: none\n")
    damage(repository, CASES["current"], "zero")
    assert "Distrusted 3 revisions" in call("distrust", "--all").out

    for night, known in enumerate([Trust.VERIFIED, Trust.VERIFIED, Trust.VERIFIED]):
        done = call("backup", "daily")
        assert done.code == 0, done.err
        assert repository.records.history()[-1].parent is None
        assert repository.records.history()[NEW - night].trust is known
    assert call("backup", "daily").err == ""
    assert repository.records.history()[-1].parent is not None
    assert call("scrub", "deep").code == 0


def test_a_damaged_revision_is_trusted_again_once_its_content_is_stored_anew(
    call: Callable, repository: Repository
) -> None:
    damage(repository, CASES["current"], "delete")
    assert call("scrub", "light").code == 1
    assert distrusted(repository) == EVERY

    done = call("backup", "daily")

    assert done.code == 0
    assert done.err.count("is whole again") == 3
    assert {revision.trust for revision in repository.records.history()} == {Trust.TRUSTED}
    assert call("scrub", "deep").code == 0


def test_the_doubt_about_a_whole_revision_outlives_the_discovery_of_damage(
    call: Callable, repository: Repository
) -> None:
    damage(repository, CASES["old"], "delete")
    call("distrust", "-r", repository.records.history()[OLD].id)

    assert call("scrub", "light").code == 1
    assert repository.records.history()[OLD].suspect
    assert call("backup", "daily").code == 0
    assert repository.records.history()[-1].parent is None
    assert repository.records.history()[OLD].damaged == (CHUNKS.index("c"),)


class Changing:
    """Steps that change the image when the verification begins: nothing has frozen it."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def __call__(self, step: str, total: int) -> Callable[[int], None]:
        if step == "verify":
            write(self.image, b=content("meanwhile"))
        return lambda _length: None


@pytest.fixture
def own_image(repository: Repository, tmp_path: Path) -> Path:
    """Let the repository have an image that may be changed."""
    image = shutil.copy(repository.config.source["filename"], tmp_path / "own.img")
    repository.config.source["filename"] = str(image)
    return Path(image)


def test_a_source_that_changes_meanwhile_fails_the_backup_and_nothing_is_called_damaged(
    call: Callable, repository: Repository, own_image: Path
) -> None:
    last = repository.records.history()[-1]
    before = [revision.id for revision in repository.records.history()]

    with pytest.raises(SourceError, match="the source was written to while it was read"):
        Backup(repository, ("daily",), steps=Changing(own_image)).run()

    assert [revision.id for revision in repository.records.history()] == before
    assert (repository.directory / "last.rev").resolve().name == f"{last.id}.rev"
    assert list(quarantine.findings(repository.directory)) == []
    assert call("scrub", "deep").code == 0
    assert call("backup", "daily").code == 0


def test_damage_that_a_changed_source_can_not_repair_fails_the_backup(repository: Repository, own_image: Path) -> None:
    chunk_file(repository, identity(repository, NEW, "b")).unlink()

    with pytest.raises(Exception, match="1 chunk that is not what the source has"):
        Backup(repository, ("daily",), steps=Changing(own_image)).run()

    assert distrusted(repository) == EVERY
    done = Backup(repository, ("daily",)).run()
    assert done.parent is None


def broken(*arguments: object) -> None:
    raise RuntimeError("defect of a plugin")


def test_no_defect_in_an_old_revision_fails_a_complete_backup(
    call: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("distrust", "--all")
    monkeypatch.setattr("backy.integrity.damage.damaged_chunks", broken)

    done = call("backup", "daily")

    assert done.code == 0
    assert "can not be looked at for damage: defect of a plugin" in done.err


def test_more_damage_than_evidence_is_kept_of_is_counted(
    call: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("backy.integrity.damage", "backy.scrubbing.scrub"):
        monkeypatch.setattr(f"{module}.MOST_FINDINGS", 1)
    damage(repository, CASES["old"], "swap")

    done = call("scrub", "deep", "--json")

    assert "1 more chunk is damaged" in done.err
    assert len(json.loads(done.out)["damaged"]) == 2
    assert quarantine.count(repository.directory) == 1


def test_a_revision_forgotten_meanwhile_is_no_damage(repository: Repository) -> None:
    from backy.errors import RevisionNotFoundError
    from backy.integrity.damage import Judge

    revision: Revision = repository.records.history()[OLD]

    def forget(_length: int) -> None:
        if (repository.directory / f"{revision.id}.rev").exists():
            repository.remove(revision.id)

    with pytest.raises(RevisionNotFoundError, match="was forgotten meanwhile"):
        Judge(repository, steps=lambda *_: forget).verify(revision)
