"""Sources that are written to while they are read: a promise that is not true is never made."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backy.api import CHUNK_SIZE, Consistency, Snapshot, SourceError
from backy.backup.backup import Backup
from backy.errors import VerificationError
from backy.integrity import quarantine
from backy.repository.config import JobConfig, SourceSection, VerifierSections
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT
from backy.testing.memory import MemoryImage

NUMBERS = itertools.count()
CHUNKS = 3


class Machine(MemoryImage):
    """A machine that runs: it writes to a chunk of its disk after that was read so many times."""

    def __init__(self, *writes: tuple[int, int]) -> None:
        super().__init__(b"".join(bytes([number + 1]) * CHUNK_SIZE for number in range(CHUNKS)))
        self.writes = writes
        self.written = False
        self.read: dict[int, list[bytes]] = defaultdict(list)
        """What was read of each chunk."""

    def pread(self, offset: int, length: int) -> bytes:
        index = offset // CHUNK_SIZE
        times = len(self.read[index])
        # chunks are read by several threads, but each by one at a time
        writes = sum((index, earlier) in self.writes for earlier in range(1, times + 1))
        found = bytes([index + 1 + 10 * writes]) * length
        self.read[index].append(found)
        self.written |= (index, times + 1) in self.writes
        return found


class Watched(Machine):
    """The same, by a source that can tell whether it was written to."""

    advice = "shut the machine down"

    @property
    def consistency(self) -> Consistency:
        return "none" if self.written else "crash"


class Boasting(Machine):
    """The same, by a source that says of itself what is not true."""

    consistency: Consistency = "crash"


class Source:
    """The source of a machine."""

    verifier = "full"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        yield self.machine


def repository_of(folder: Path, machine: Machine, verifier: str, *, accept: bool) -> Repository:
    """Make a repository of a machine, which accepts torn images or does not."""
    written = {"type": "file", "filename": "/nowhere", **({"torn": "accept"} if accept else {})}
    config = JobConfig(format=FORMAT, source=SourceSection(written), verifier=VerifierSections.from_plain(verifier))
    repository = Repository.initialize(folder / f"repository-{next(NUMBERS)}", config)
    repository.source = lambda: Source(machine)  # type: ignore[method-assign]  # a stand-in
    return repository


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("machines")


# read once to be stored, once to be compared, and once more if it differs
WRITES = st.sets(st.tuples(st.integers(0, CHUNKS - 1), st.integers(1, 3)), max_size=4)
VERIFIERS = st.sampled_from(["full", "sample", "none", "changed"])


def test_a_revision_is_what_it_says_or_there_is_none(folder, rounds) -> None:
    kinds = st.sampled_from([Watched, Machine, Boasting])
    tried = given(writes=WRITES, verifier=VERIFIERS, accept=st.booleans(), kind=kinds)(_what_it_says)
    settings(max_examples=rounds(12, 400))(tried)(folder=folder)


def _what_it_says(folder: Path, writes: set[tuple[int, int]], verifier: str, *, accept: bool, kind: Any) -> None:
    machine: Machine = kind(*writes)
    repository = repository_of(folder, machine, verifier, accept=accept)
    failed, revision = None, None
    try:
        revision = Backup(repository, ("daily",)).run()
    except (SourceError, VerificationError) as error:
        failed = error

    if revision is None:
        assert machine.written
        assert repository.records.survey() == ([], [])
        # what a source knows or admits is accepted; a lie is not, and is proved
        assert not accept or kind is Boasting
        assert isinstance(failed, VerificationError) == (quarantine.count(repository.directory) > 0)
        assert not (kind is Watched and isinstance(failed, VerificationError))
        return
    with repository.image(revision) as image:
        stored = [image.chunk(index) for index in range(CHUNKS)]
    assert stored == [machine.read[index][0] for index in range(CHUNKS)]
    still = sum(stored[index] == machine.read[index][-1] for index in range(CHUNKS))
    checked = revision.verification.checked
    assert checked == still if verifier in {"full", "changed"} else checked <= still
    assert quarantine.count(repository.directory) == 0
    assert accept or revision.consistency != "none"
    if kind is Watched:
        assert revision.consistency == ("none" if machine.written else "crash")
    elif still < CHUNKS:
        assert revision.consistency == "none"
    else:
        assert revision.consistency in ({"unknown", "crash"})


def test_what_the_source_changed_since_does_not_count_as_compared(folder, caplog) -> None:
    machine = Watched((0, 1), (2, 1), (1, 2))
    repository = repository_of(folder, machine, "full", accept=True)
    with caplog.at_level(logging.WARNING):
        revision = Backup(repository, ("daily",)).run()
    assert str(revision.verification) == f"verified {CHUNKS - 2} of {CHUNKS} chunks"
    assert revision.consistency == "none"
    assert f"{revision.id} is torn: the source was written to while it was read" in caplog.text


def test_a_torn_image_is_refused_with_advice_before_it_is_read_again(folder) -> None:
    machine = Watched((0, 1))
    with pytest.raises(SourceError) as raised:
        Backup(repository_of(folder, machine, "full", accept=False), ("daily",)).run()
    assert str(raised.value) == (
        "the source was written to while it was read, so its image is of no one instant: shut the machine down; "
        "'torn: accept' in the section 'source' keeps such images"
    )
    assert all(len(machine.read[index]) == 1 for index in range(CHUNKS))


def test_a_source_that_lies_is_a_liar_even_if_torn_images_are_accepted(folder) -> None:
    # it claims one instant, and gives the same twice, but not what was stored
    with pytest.raises(VerificationError, match="1 chunk that is not what the source has"):
        Backup(repository_of(folder, Boasting((0, 1)), "full", accept=True), ("daily",)).run()


def test_two_reads_that_differ_are_of_no_one_instant_whatever_the_source_says(folder) -> None:
    with pytest.raises(SourceError, match="written to while it was read"):
        Backup(repository_of(folder, Boasting((0, 1), (0, 2)), "full", accept=False), ("daily",)).run()


@pytest.mark.parametrize("torn", ["yes", True, None, ["accept"]])
def test_another_word_for_torn_is_refused(torn) -> None:
    with pytest.raises(ValueError, match="'torn' is 'accept' or 'refuse', not"):
        SourceSection({"type": "file", "torn": torn})
