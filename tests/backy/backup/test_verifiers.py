"""Several verifiers of one job, and what they remark."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from backy.api import CHUNK_SIZE, Mismatch, Report, Verification
from backy.backup.backup import Backup
from backy.errors import VerificationError
from backy.repository.repository import Repository
from backy.repository.running import COUNTER
from backy.testing.memory import MemoryImage, MemoryRepository


@dataclass
class Remarking:
    """A verifier that compares nothing and says what a test wants."""

    name: str = "guest"
    remarks: tuple[str, ...] = ()
    wrong: bool = False
    calls: list[str] = field(default_factory=list)

    def verify(self, snapshot, image, mismatch, progress, coverage) -> Report:
        self.calls.append(self.name)
        if self.wrong:
            mismatch(Mismatch(0, "it is wrong", snapshot.pread(0, CHUNK_SIZE), b"b"))
        return Report(self.name, (), remarks=self.remarks)


@pytest.fixture
def verified(repository: Repository, clock, monkeypatch):
    """Back up with these verifiers behind the verifier `full`."""
    full = repository.verifiers("full")

    def run(*verifiers: Remarking):
        monkeypatch.setattr(repository, "verifiers", lambda default: [*full, *verifiers])
        return Backup(repository, ("daily",), clock=clock).run()

    return run


def test_a_remark_is_recorded_and_the_revision_stays(repository: Repository, verified, backy) -> None:
    revision = verified(Remarking(remarks=("ext4 has 3 faults\nrun e2fsck", "it was not unmounted")))

    assert repository.records.history() == [revision]
    full, guest = revision.verifications
    assert (full.verifier, full.checked, full.remarks) == ("full", 5, ())
    lines = ("guest: ext4 has 3 faults run e2fsck", "guest: it was not unmounted")
    assert guest == Verification("guest", 0, 5, remarks=lines)
    assert revision.info.verifications == revision.verifications
    assert str(revision.verification) == "verified, 2 remarks"
    shown = backy("-b", repository.directory, "status", "--wide").out
    assert "verified, 2 remarks" in shown
    assert f"{revision.id} {lines[0]}" in shown
    (found,) = json.loads(backy("-b", repository.directory, "status", "--json").out)["revisions"]
    assert [one["verifier"] for one in found["verifications"]] == ["full", "guest"]
    assert found["verification"]["remarks"] == list(lines)


def test_more_remarks_than_a_record_should_have_are_counted(verified) -> None:
    revision = verified(Remarking(remarks=("x" * 1000,) * 30))
    remarks = revision.verification.remarks
    assert len(remarks) == 21
    assert remarks[0] == "guest: " + "x" * 500
    assert remarks[-1] == "guest: and 10 more remarks"


def test_verifiers_run_in_order_until_one_finds_a_difference(repository: Repository, verified) -> None:
    calls: list[str] = []
    with pytest.raises(VerificationError, match="it is wrong"):
        verified(Remarking("one", calls=calls), Remarking("two", wrong=True, calls=calls), Remarking("3", calls=calls))
    assert calls == ["one", "two"]
    assert repository.records.survey() == ([], [])


def test_numbers_from_ahead_of_a_copy_keep_nothing_from_being_compared(backy_repository: MemoryRepository) -> None:
    """As if a copy was interrupted: it has `.compared` of a revision that did not get there."""
    vm = backy_repository
    vm.memory.content = b"1" * 3 * CHUNK_SIZE
    first = Backup(vm, ("daily",)).run()
    ahead = Backup(vm, ("daily",)).run()
    vm.remove(ahead.id)
    (vm.directory / COUNTER).write_text(f"{first.seq}\n")
    reads: list[int] = []

    class Noting(MemoryImage):
        def pread(self, offset: int, length: int) -> bytes:
            reads.append(offset // CHUNK_SIZE)
            return super().pread(offset, length)

    vm.memory.wrap = lambda _: Noting(b"2" * 3 * CHUNK_SIZE)
    assert Backup(vm, ("daily",)).run().seq == ahead.seq
    # to store them, and to compare them
    assert sorted(reads) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("verifications", "together"),
    [
        ([], None),
        ([Verification("full", 5, 5)], Verification("full", 5, 5)),
        (
            [Verification("sample", 1, 5, out_of_time=True), Verification("e2fsck", 0, 5, remarks=("e2fsck: no",))],
            Verification("sample, e2fsck", 1, 5, out_of_time=True, remarks=("e2fsck: no",)),
        ),
        # a part that ran out of time is of no matter if another one compared all
        (
            [Verification("full", 5, 5), Verification("sample", 1, 5, out_of_time=True)],
            Verification("full, sample", 5, 5),
        ),
    ],
)
def test_together_no_more_is_claimed_than_one_of_them_compared(verifications, together) -> None:
    assert Verification.together(verifications) == together
