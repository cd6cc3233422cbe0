"""Files beside an image: they come with it, are checked, and go with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from backy.api import SourceError
from backy.backup import attached
from backy.backup.backup import Backup
from backy.repository.attachments import LARGEST, read
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.scrubbing.scrub import Scrub
from backy.testing.laboratory import Laboratory, patterned
from backy.testing.memory import MemoryImage, MemoryRepository
from tests.keeper import install


class Described(MemoryImage):
    """An image that comes with files."""

    files: Mapping[str, bytes] = {}

    def attachments(self) -> Mapping[str, bytes]:
        return self.files


class Broken(MemoryImage):
    """An image whose files can not be had."""

    def attachments(self) -> Mapping[str, bytes]:
        raise SourceError("libvirt does not answer")


def backup(repository: Repository, **programs: str) -> Revision:
    repository.config.attachments = programs
    return Backup(repository, ("daily",)).run()


def remarks(revision: Revision) -> list[str]:
    assert revision.verification
    return list(revision.verification.remarks)


def test_what_programs_print_is_kept_with_a_digest_in_the_record(repository: Repository) -> None:
    made = backup(repository, net="printf 'a\\0b'", empty="true")
    assert read(repository.records, made) == {"net": b"a\0b", "empty": b""}
    path = repository.directory / f"{made.id}.attachments"
    assert made.attachments == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_mode & 0o777 == 0o440
    assert remarks(made) == []


def test_a_backup_without_attachments_has_no_file(repository: Repository) -> None:
    assert backup(repository).attachments is None
    assert not list(repository.directory.glob("*.attachments"))


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("sh -c 'echo half; exit 3'", "net is missing: 'sh -c 'echo half; exit 3'' ended with exit code 3"),
        ("/missing/program", "net is missing: '/missing/program' ended with exit code 127"),
        ("'open", "net is missing: ''open' can not be run: No closing quotation"),
        ("yes", "net is left out: all attachments together have at most 1.0 MiB"),
        (
            "sh -c 'sleep 5 & echo here'",
            "net is missing: 'sh -c 'sleep 5 & echo here'' has started something that keeps its output open",
        ),
        ("sleep 60", "net is missing: 'sleep 60' ended with exit code 124"),
    ],
)
def test_a_program_that_fails_fails_no_backup_but_is_told(
    repository: Repository, program: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in program:
        monkeypatch.setattr(attached, "LIMIT", 0.2)
        monkeypatch.setattr(attached, "SPARE", 0.2)
    made = backup(repository, net=program, other="echo here")
    assert read(repository.records, made) == {"other": b"here\n"}
    assert remarks(made) == [f"attachments: {problem}"]


def test_a_source_gives_files_and_wrong_ones_are_left_out(tmp_path: Path) -> None:
    repository = MemoryRepository.make(tmp_path / "vm")
    files = {"libvirt.xml": b"<domain/>", "../evil": b"", "large": bytes(LARGEST), "small": b"1"}
    repository.memory.wrap = lambda image: _described(image, files)
    made = Backup(repository, ("daily",)).run()
    assert read(repository.records, made) == {"libvirt.xml": b"<domain/>", "small": b"1"}
    assert remarks(made) == [
        "attachments: '../evil' can be no attachment: its name becomes that of a file",
        "attachments: large is left out: all attachments together have at most 1.0 MiB",
    ]


def _described(image: MemoryImage, files: Mapping[str, bytes]) -> Described:
    found = Described(image.content)
    found.files = files
    return found


def test_a_source_that_can_not_give_them_fails_no_backup(tmp_path: Path) -> None:
    repository = MemoryRepository.make(tmp_path / "vm")
    repository.memory.wrap = lambda image: Broken(image.content)
    made = Backup(repository, ("daily",)).run()
    assert remarks(made) == ["attachments: those of the source are missing: libvirt does not answer"]


def test_they_are_listed_and_copied_and_nothing_is_replaced(repository: Repository, backy, tmp_path: Path) -> None:
    backup(repository, net="printf abc", rules="printf ''")
    backy("-b", repository.directory, "tags", "set", "-r", "last", "manual:x")
    command = ("-b", repository.directory, "attachments", "-r", "manual:x")
    assert backy(*command).out == "       3 net\n       0 rules\n"
    assert backy(*command, "--into", tmp_path / "there").code == 0
    assert (tmp_path / "there/net").read_bytes() == b"abc"
    assert (tmp_path / "there/net").stat().st_mode & 0o777 == 0o600
    (tmp_path / "there/rules").unlink()
    again = backy(*command, "--into", tmp_path / "there")
    assert (again.code, again.err) == (
        1,
        f"Error: {tmp_path / 'there/net'} is there already; --force replaces it\n",
    )
    assert not (tmp_path / "there/rules").exists()
    assert backy(*command, "--into", tmp_path / "there", "--force").code == 0
    assert (tmp_path / "there/rules").read_bytes() == b""


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "can not be read: No such file or directory"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"YWJj", b"YWJk")), "is damaged: it is not what"),
    ],
)
def test_damage_is_told_by_all_who_look_and_hurts_no_image(
    repository: Repository, backy, damage, problem: str, tmp_path: Path
) -> None:
    made = backup(repository, net="printf abc")
    path = repository.directory / f"{made.id}.attachments"
    path.chmod(0o600)
    damage(path)
    for command in (["attachments"], ["verify", "-r", "last"], ["scrub", "light"]):
        told = backy("-b", repository.directory, *command)
        assert (told.code, problem in told.out + told.err) == (1, True), told
    assert backy("-b", repository.directory, "restore", tmp_path / "restored").code == 0
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "disk.img").read_bytes()


def test_attachments_of_another_revision_are_noticed(repository: Repository) -> None:
    first, second = backup(repository, net="printf 1"), backup(repository, net="printf 2")
    paths = [repository.directory / f"{one.id}.attachments" for one in (first, second)]
    paths[0].replace(paths[1])
    assert "is damaged" in " ".join(Scrub(repository, deep=False, clock=lambda: first.timestamp).run().problems)


def test_they_go_with_their_revision(repository: Repository, backy) -> None:
    first, second = backup(repository, net="printf 1"), backup(repository, net="printf 2")
    assert backy("-b", repository.directory, "forget", "-r", first.id).code == 0
    assert backy("-b", repository.directory, "purge", "--trash").code == 0
    assert [path.name for path in repository.directory.glob("*.attachments")] == [f"{second.id}.attachments"]


def test_what_a_killed_backup_left_goes_with_the_next_one(repository: Repository) -> None:
    made = backup(repository, net="printf 1")
    for suffix in (".rev", ".state", ".map"):
        (repository.directory / f"{made.id}{suffix}").unlink()
    backup(repository)
    assert not list(repository.directory.glob("*.attachments"))


def test_they_are_published_before_the_record_withdrawn_and_fetched(
    tmp_path: Path, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, bytes] = {}
    calls: list[str] = []
    install(monkeypatch, kept, calls)
    laboratory = Laboratory(tmp_path / "vm", clock, {"type": "keeper", "name": "chunks"})
    laboratory.initialize()
    laboratory.content = patterned(1)
    repository = laboratory.open()
    repository.config.attachments = {"net": "printf 1"}
    made = laboratory.back_up(repository)
    name = f"{made.id}.attachments"
    assert calls.index(f"publish {name}") < calls.index(f"publish {made.id}.rev")
    content = (laboratory.directory / name).read_bytes()
    for path in laboratory.directory.glob(f"{made.id}.*"):
        path.unlink()
    laboratory.back_up(laboratory.open())
    assert (laboratory.directory / name).read_bytes() == content
    laboratory.forget(made.id)
    assert name not in kept


def test_the_keys_are_checked(repository: Repository, backy) -> None:
    path = repository.directory / "config"
    path.write_text(path.read_text() + "attachments: {../net: 'printf 1'}\n")
    told = backy("-b", repository.directory, "backup", "daily")
    assert told.code == 1
    assert "attachments" in told.err
