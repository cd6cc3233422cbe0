from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backy.api import Mismatch
from backy.backup.backup import Backup
from backy.backup.findings import Findings
from backy.errors import ChunkDamageError, VerificationError
from backy.integrity import quarantine
from backy.integrity.damage import damage_of
from backy.repository.repository import Repository


@pytest.fixture
def findings(repository: Repository, clock) -> Iterator[Findings]:
    """For the revision of an image whose chunks 2 and 3 are the same."""
    revision = Backup(repository, ("daily",), clock=clock).run()
    with repository.open_image(revision) as image:
        yield Findings(repository, revision.id, image, clock)


def chunk_file(findings: Findings, index: int) -> Path:
    name = findings.image.chunks[index].hex()
    return findings.repository.directory / "chunks" / name[:2] / f"{name}.zst"


def damaged(findings: Findings, index: int, expected: bytes) -> Mismatch:
    error = damage_of(findings.image, index)
    assert error is not None
    return Mismatch(index, str(error), expected, error.evidence, error)


def test_no_finding_is_no_error(findings: Findings) -> None:
    findings.judge()


def test_a_difference_fails_the_verification_and_both_blocks_are_kept(findings: Findings) -> None:
    findings.add(Mismatch(2, "stored and source differ", b"source", b"stored"))

    with pytest.raises(VerificationError, match=r"found 1 chunk .* the first is chunk 2: stored and source differ"):
        findings.judge()
    folder = findings.repository.directory / quarantine.FOLDER / f"{findings.revision_id}-2"
    assert (folder / "source").read_bytes() == b"source"
    assert (folder / "stored").read_bytes() == b"stored"
    assert findings.damaged == set()


def test_damage_is_repaired_from_the_source_and_fails_nothing(findings: Findings) -> None:
    content = findings.image.chunk(0)
    chunk_file(findings, 0).unlink()

    findings.add(damaged(findings, 0, content))

    findings.judge()
    assert findings.damaged == {findings.image.chunks[0]}
    assert findings.image.chunk(0) == content
    assert [finding.repaired for finding in quarantine.findings(findings.repository.directory)] == [True]


def test_content_that_is_in_two_places_is_repaired_once(findings: Findings) -> None:
    content = findings.image.chunk(2)
    chunk_file(findings, 2).unlink()
    both = [damaged(findings, 2, content), damaged(findings, 3, content)]

    findings.add(both[0])
    repaired = chunk_file(findings, 2).stat()
    findings.add(both[1])

    findings.judge()
    assert chunk_file(findings, 2).stat().st_ino == repaired.st_ino


@pytest.mark.parametrize("expected", [b"something else", None])
def test_damage_is_not_repaired_by_what_the_source_has_now(findings: Findings, expected: bytes | None) -> None:
    chunk_file(findings, 0).unlink()

    findings.add(damaged(findings, 0, expected))

    with pytest.raises(VerificationError):
        findings.judge()
    assert not chunk_file(findings, 0).exists()
    assert [finding.repaired for finding in quarantine.findings(findings.repository.directory)] == [False]


def test_the_chunk_that_another_is_made_of_counts_as_damaged(findings: Findings) -> None:
    base = bytes(range(32))
    error = ChunkDamageError(findings.image.chunks[0], "its base is damaged", base=base)

    findings.add(Mismatch(0, str(error), findings.image.chunk(0), None, error))

    assert findings.damaged == {findings.image.chunks[0], base}


def test_much_damage_leaves_room_for_the_evidence_of_a_difference(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backy.backup.findings.MOST_FINDINGS", 1)
    contents = {index: findings.image.chunk(index) for index in (0, 2)}
    for index, content in contents.items():
        chunk_file(findings, index).unlink()
        findings.add(damaged(findings, index, content))
    for index in (3, 4):
        findings.add(Mismatch(index, "stored and source differ", b"source", b"stored"))

    assert findings.failures == 2
    assert {finding.name for finding in quarantine.findings(findings.repository.directory)} == {
        findings.image.chunks[0].hex(),
        f"{findings.revision_id}-3",
    }
