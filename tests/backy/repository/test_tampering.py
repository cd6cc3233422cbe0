"""Whether somebody who can write to a repository can change what a witness has seen without being found out."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from backy.answers.replay import Head, findings, replay
from backy.repository.journal import BEGIN, JOURNAL, NO_LINE, Fact, Journal, decode, digest, encode, fact_of, facts_of
from backy.scheduler.jobs.repositories import NOTHING_KNOWN, Audited, summarize
from backy.standalone import audit
from tests.wrong_files import WRONG

LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
Attack = Callable[[random.Random, "Victim"], None]


class Victim:
    """A repository in which things are done, without a backup."""

    def __init__(self, directory: Path, chance: random.Random, job: str = "job") -> None:
        self.directory, self.chance, self.job = directory, chance, job
        directory.mkdir(parents=True)
        self.journal = Journal(directory)
        self.journal.declare(BEGIN, job, {})
        self.made = 0
        self.older: list[tuple[Path, bytes]] = []
        """States as they were once."""

    def live(self, acts: int) -> None:
        """Do some acts."""
        for _ in range(acts):
            here = self.revisions()
            act = self.chance.choice(["backup", "backup", "tags", "forget"]) if here else "backup"
            if act == "backup":
                self.back_up()
            elif act == "tags":
                self.tag(self.chance.choice(here))
            else:
                self.forget(self.chance.choice(here))

    def revisions(self) -> list[str]:
        return sorted(path.stem for path in self.directory.glob("*.rev"))

    def back_up(self) -> None:
        self.made += 1
        name = f"{self.job}-revision-{self.made}"
        record, state = self.chance.randbytes(20), self.chance.randbytes(20)
        with self.journal.act("backup", name, Fact(digest(record), digest(state))):
            (self.directory / f"{name}.state").write_bytes(state)
            (self.directory / f"{name}.rev").write_bytes(record)

    def tag(self, name: str) -> None:
        path = self.directory / f"{name}.state"
        self.older.append((path, path.read_bytes()))
        content = self.chance.randbytes(20)
        now = fact_of(self.directory, name)
        with self.journal.act("tags", name, Fact(now.record, digest(content))):
            path.write_bytes(content)

    def forget(self, name: str) -> None:
        with self.journal.act("purge", name, Fact()):
            for suffix in (".rev", ".state"):
                (self.directory / f"{name}{suffix}").unlink()

    @property
    def head(self) -> Head:
        lines = self.journal.read()
        return Head(self.job, len(lines), lines[-1].hash)

    def findings(self, *witnesses: Head) -> list[str]:
        return findings(self.journal.read(), facts_of(self.directory), witnesses)

    def findings_without_backy(self) -> list[str]:
        audit.REPOSITORY = self.directory
        return audit.audit()


def rewrite(victim: Victim, change: Callable[[list[bytes]], list[bytes]], *, fitting: bool) -> None:
    """Change lines of the journal; `fitting` numbers and chains them anew."""
    path = victim.directory / JOURNAL
    lines = change(path.read_bytes().splitlines())
    if fitting:
        before = NO_LINE
        for index, raw in enumerate(lines):
            (line, _), *_ = decode(raw + b"\n")
            assert line is not None
            lines[index] = encode(msgspec.structs.replace(line, number=index + 1, before=before))[:-1]
            before = digest(lines[index])
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def remove(chance: random.Random, victim: Victim) -> None:
    chance.choice([*victim.directory.glob("*.rev"), *victim.directory.glob("*.state")]).unlink()


def remove_newest_and_tell_nobody(chance: random.Random, victim: Victim) -> None:
    """Remove a revision, and each line that tells of it."""
    name = chance.choice(victim.revisions())
    for suffix in (".rev", ".state"):
        (victim.directory / f"{name}{suffix}").unlink()
    rewrite(victim, lambda lines: [line for line in lines if name.encode() not in line], fitting=True)


def truncate(chance: random.Random, victim: Victim) -> None:
    files = [*victim.directory.glob("*.rev"), *victim.directory.glob("*.state"), victim.directory / JOURNAL]
    path = chance.choice(files)
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def shorten(chance: random.Random, victim: Victim) -> None:
    """Take the last acts back: in the journal only."""
    kept = chance.randrange(1, len(victim.journal.read()))
    rewrite(victim, lambda lines: lines[:kept], fitting=False)


def swap(chance: random.Random, victim: Victim) -> None:
    victim.back_up()
    one, other = chance.sample(sorted(victim.directory.glob("*.rev")), 2)
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


def replay_state(chance: random.Random, victim: Victim) -> None:
    older = [(path, content) for path, content in victim.older if path.exists() and path.read_bytes() != content]
    if older:
        path, content = chance.choice(older)
        path.write_bytes(content)
    else:
        remove(chance, victim)


def edit(chance: random.Random, victim: Victim) -> None:
    """Replace a record, whose own digest fits of course."""
    chance.choice(sorted(victim.directory.glob("*.rev"))).write_bytes(chance.randbytes(20))


def edit_with_its_lines(chance: random.Random, victim: Victim) -> None:
    """Replace a record, and its digest in each line of the journal."""
    path = chance.choice(sorted(victim.directory.glob("*.rev")))
    old, content = digest(path.read_bytes()).encode(), chance.randbytes(20)
    path.write_bytes(content)
    new = digest(content).encode()
    rewrite(victim, lambda lines: [line.replace(old, new) for line in lines], fitting=True)


def reorder(chance: random.Random, victim: Victim) -> None:
    def change(lines: list[bytes]) -> list[bytes]:
        one, other = sorted(chance.sample(range(len(lines)), 2))
        return [*lines[:one], lines[other], *lines[one + 1 : other], lines[one], *lines[other + 1 :]]

    rewrite(victim, change, fitting=chance.random() < 0.5)


def adopt_the_rest(chance: random.Random, victim: Victim) -> None:
    remove(chance, victim)
    victim.journal.declare("adopt", None, facts_of(victim.directory))


def copy_of_another(chance: random.Random, victim: Victim) -> None:
    other = Victim(victim.directory.with_name("other"), chance, "other")
    other.live(len(victim.journal.read()))
    shutil.rmtree(victim.directory)
    other.directory.rename(victim.directory)


def flip_a_bit(chance: random.Random, victim: Victim) -> None:
    """Flip a bit of the journal, but none that makes or unmakes a line."""
    path = victim.directory / JOURNAL
    content = bytearray(path.read_bytes())
    index = chance.choice([index for index, byte in enumerate(content) if byte != ord("\n")])
    flipped = [content[index] ^ 1 << bit for bit in range(8)]
    content[index] = chance.choice([byte for byte in flipped if byte != ord("\n")])
    path.write_bytes(content)


def remove_a_line(chance: random.Random, victim: Victim) -> None:
    index = chance.randrange(1, len(victim.journal.read()) - 1)
    rewrite(victim, lambda lines: lines[:index] + lines[index + 1 :], fitting=False)


def without_journal(_: random.Random, victim: Victim) -> None:
    (victim.directory / JOURNAL).unlink()


ATTACKS: list[Attack] = [
    remove,
    remove_newest_and_tell_nobody,
    truncate,
    shorten,
    swap,
    replay_state,
    edit,
    edit_with_its_lines,
    reorder,
    adopt_the_rest,
    copy_of_another,
    flip_a_bit,
    remove_a_line,
    without_journal,
]
ONLY_BY_A_WITNESS = {
    remove_newest_and_tell_nobody,
    edit_with_its_lines,
    adopt_the_rest,
    copy_of_another,
    flip_a_bit,
    reorder,
    shorten,
    truncate,
}
"""What a directory looks sound after, at least at times, to those who see it for the first time."""


@pytest.fixture
def memory() -> Iterator[Path]:
    """Return a folder in memory: a disk would sync each line."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def prepared(directory: Path, chance: random.Random) -> Victim:
    victim = Victim(directory / "victim", chance)
    victim.live(chance.randrange(3, 12))
    victim.back_up()
    return victim


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_witness_finds_each_change_of_what_it_has_seen(
    attack: Attack, memory: Path, rounds: Callable[[int, int], int]
) -> None:
    for number in range(rounds(17, 850)):
        chance = random.Random(number)
        directory = memory / str(number)
        victim = prepared(directory, chance)
        head = victim.head
        assert victim.findings(head) == []
        attack(chance, victim)
        assert victim.findings(head), f"round {number}"
        without_backy = victim.findings_without_backy()
        # it does not tell in how many ways the same can be written
        assert victim.findings() == without_backy or attack is flip_a_bit, f"round {number}"
        assert victim.findings() or not without_backy, f"round {number}"
        if attack not in ONLY_BY_A_WITNESS:
            assert victim.findings(), f"round {number}"
        shutil.rmtree(directory)


def test_honest_acts_contradict_no_witness(memory: Path, rounds: Callable[[int, int], int]) -> None:
    for number in range(rounds(20, 500)):
        chance = random.Random(number)
        victim = prepared(memory / str(number), chance)
        heads = [victim.head]
        for _ in range(5):
            victim.live(chance.randrange(4))
            heads.append(victim.head)
        assert victim.findings(*heads) == victim.findings_without_backy() == []


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_file_is_a_finding_with_and_without_backy(tmp_path: Path, kind: str) -> None:
    victim = Victim(tmp_path / "vm", random.Random(1))
    victim.back_up()
    (name,) = victim.revisions()
    path = victim.directory / f"{name}.state"
    path.unlink()
    WRONG[kind](path)
    finding = f"{name}.state is no regular file, or too long"
    assert victim.findings() == victim.findings_without_backy() == [finding]
    # an act on it does not make it right
    with victim.journal.act("tags", name, Fact(fact_of(victim.directory, name).record, digest(b"x"))):
        path.rmdir() if kind == "folder" else path.unlink()
        path.write_bytes(b"x")
    found = victim.findings()
    assert found == victim.findings_without_backy() == [f"line 4: {name} was not what was written last, before 'tags'"]


def test_a_rollback_of_everything_is_found_by_a_witness_alone(tmp_path: Path) -> None:
    victim = prepared(tmp_path, random.Random(1))
    shutil.copytree(victim.directory, tmp_path / "before")
    victim.live(5)
    head = victim.head
    shutil.rmtree(victim.directory)
    (tmp_path / "before").rename(victim.directory)
    assert victim.findings() == []
    assert len(victim.findings(head)) == 1


def test_of_lines_that_are_removed_only_the_last_one_alone_looks_like_a_crash(memory: Path) -> None:
    victim = Victim(memory / "victim", random.Random(1))
    for name in ("job-revision-1", "job-revision-1", "job-revision-2", "job-revision-1"):
        victim.back_up()
        victim.tag(name)
    victim.forget("job-revision-1")
    path, head = victim.directory / JOURNAL, victim.head
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 19
    alike = set()
    for start, end in itertools.combinations(range(len(lines) + 1), 2):
        path.write_bytes(b"".join(lines[:start] + lines[end:]))
        assert victim.findings(head) != []
        assert victim.findings() == victim.findings_without_backy()
        if victim.findings() == []:
            alike.add((start, end))
    assert alike == {(18, 19)}

    # a part of it is as good as all, and the next act tells again that it was done
    for size in (1, len(lines[-1]) // 2, len(lines[-1]) - 1):
        path.write_bytes(b"".join(lines[:-1]) + lines[-1][:size])
        assert victim.findings() == []
        victim.back_up()
        assert victim.findings() == []
        assert [(line.act, line.step) for line, _ in victim.journal.read()[17:19] if line] == [
            ("purge", "intended"),
            ("purge", "done"),
        ]
        assert victim.findings(head) == ["line 19 of the journal is not the one that the witness saw"]
        victim.forget(victim.revisions()[-1])


def test_that_something_came_and_went_only_a_witness_knows(memory: Path) -> None:
    victim = Victim(memory / "victim", random.Random(1))
    victim.back_up()
    path = victim.directory / JOURNAL
    before = path.read_bytes()
    victim.back_up()
    victim.forget("job-revision-2")
    head = victim.head
    path.write_bytes(before)
    assert victim.findings() == []
    assert victim.findings(head) == ["the journal ends with line 3, and the witness saw line 7"]


def look(victim: Victim, earlier: Audited = NOTHING_KNOWN) -> Audited:
    (victim.directory / "config").touch()
    return summarize(victim.directory, LONG_AGO, LATER, earlier=earlier).audited


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_scheduler_that_reads_only_what_is_new_finds_the_same(
    attack: Attack, memory: Path, rounds: Callable[[int, int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backy.scheduler.jobs.repositories.LONG", 0)
    for number in range(rounds(3, 200)):
        chance = random.Random(number)
        victim = prepared(memory / str(number), chance)
        seen = look(victim)
        for _ in range(3):
            victim.live(chance.randrange(3))
            seen = look(victim, seen)
            assert seen.tampering == ()
            assert seen.known
            assert seen.known.history == replay(victim.journal.read())
            assert seen.head == seen.known.history.head
        victim.back_up()
        seen = look(victim, seen)
        attack(chance, victim)
        found = look(victim, seen)
        if attack is not adopt_the_rest:
            assert found == look(victim, found) == seen._replace(tampering=found.tampering)
            assert found.tampering == look(victim, Audited(seen.head)).tampering != (), f"round {number}"
            victim.journal.begin(victim.job)
            victim.journal.declare("adopt", None, facts_of(victim.directory))
        # what a person declared to be right is remembered from then on, and the scheduler has logged it
        adopted = look(victim, found)
        assert adopted.tampering == ()
        assert adopted.known
        assert adopted.known.history == replay(victim.journal.read())


def test_a_bit_of_any_line_but_the_last_is_missed_without_a_witness(
    memory: Path, rounds: Callable[[int, int], int]
) -> None:
    victim = prepared(memory / "victim", random.Random(1))
    path = victim.directory / JOURNAL
    content = path.read_bytes()
    for index in range(0, content[:-1].rfind(b"\n"), rounds(53, 1)):
        changed = bytearray(content)
        changed[index] ^= 1
        path.write_bytes(changed)
        assert victim.findings() != [], index
        assert victim.findings_without_backy() != [], index
