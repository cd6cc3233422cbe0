from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.api import Verification, chunk_count
from backy.backup.backup import Backup
from backy.errors import ConfigError
from backy.repository.config import VerifierSections
from backy.repository.repository import Repository


@pytest.fixture
def unverified(repository: Repository) -> Repository:
    (repository.directory / "config").chmod(0o600)
    with (repository.directory / "config").open("a") as stream:
        stream.write("verifier: none\n")
    return Repository.open(repository.directory)


def test_checks_nothing_and_the_revision_says_so(unverified: Repository, image: Path):
    revision = Backup(unverified, ("daily",)).run()
    assert revision.verification == Verification("none", 0, chunk_count(image.stat().st_size))
    assert str(revision.verification) == "not verified"


def test_reads_the_source_only_once(unverified: Repository, image: Path):
    steps = []

    def step(name: str, total: int) -> Callable[[int], None]:
        return lambda length: steps.append((name, length))

    Backup(unverified, ("daily",), steps=step).run()
    assert {name for name, _ in steps} == {"backup"}


def test_what_it_lets_pass_is_still_noticed_by_a_restore(unverified: Repository, tmp_path: Path, backy: Callable):
    Backup(unverified, ("daily",)).run()
    chunk = next((unverified.directory / "chunks").glob("??/*.zst"))
    chunk.chmod(0o600)
    chunk.write_bytes(chunk.read_bytes()[:-1])
    restored = backy("-b", unverified.directory, "restore", "-r", "last", tmp_path / "restored.img")
    assert restored.code != 0
    assert chunk.name[:12] in restored.err


def test_commands_call_the_revision_not_verified(unverified: Repository, backy: Callable):
    made = backy("-b", unverified.directory, "backup", "daily")
    assert made.code == 0
    assert made.out.endswith(" not verified\n")
    assert "not verified" in backy("-b", unverified.directory, "status", "--wide").out


def test_takes_no_options(repository: Repository):
    config = msgspec.structs.replace(
        repository.config, verifier=VerifierSections.from_plain({"type": "none", "chunks": 5})
    )
    with pytest.raises(ConfigError, match=r"config\.verifier\.chunks: unknown key"):
        Repository(repository.directory, config).verifiers("none")


def test_an_image_without_chunks_needs_no_look_to_be_verified():
    assert str(Verification("none", 0, 0)) == "verified"
    assert str(Verification("sample", 1, 5)) == "verified 1 of 5 chunks"
    assert str(Verification("full", 5, 5)) == "verified"
