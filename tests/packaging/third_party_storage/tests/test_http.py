"""The storage keeps the contract, and a directory that is lost is made anew of what the server has."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import commands
import pytest
from objectserver import ObjectServer

from backy.reading import open_repository
from backy.testing.storage_contract import StorageContract, StorageUnderTest

MIB = 2**20
CANARY = "canary-that-sings"
ROUNDS = int(os.environ.get("ROUNDS", "20"))
"""How many of the steps are interrupted; 0 for all."""
LOADED = [
    *("backy.cli.main", "backy.backup.backup", "backy.making.making", "backy.restore.restore"),
    *(f"backy.cli.commands.{name}" for name in ("doubt", "keeping", "moving", "repositories")),
    *("backy.groups.acts", "backy.groups.forget", "http.client", "stevedore.driver", "stevedore.named"),
]
"""What commands import that tests run."""


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    made = ObjectServer()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[ObjectServer]:
    made = ObjectServer()
    yield made
    made.close()


class TestHttpStorage(StorageContract):
    @pytest.fixture
    def subject(self, server: ObjectServer, tmp_path: Path) -> StorageUnderTest:
        (tmp_path / "jobs").mkdir()
        return StorageUnderTest({"type": "http", "address": server.address}, tmp_path / "jobs", blobs=server.blobs)


class Running(NamedTuple):
    """A command in a process of its own, and what it prints."""

    process: multiprocessing.process.BaseProcess
    printed: Path

    def wait(self) -> tuple[int | None, str]:
        """Return its exit code and what it printed."""
        self.process.join()
        text = self.printed.read_text()
        self.printed.unlink()
        return self.process.exitcode, text


# Loads backy once: most commands take less time than that. The names are those of installed modules, for the server of
# Python 3.11 does not look for others, and says nothing.
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(LOADED)


def start(*words: str) -> Running:
    """Start a command of backy."""
    descriptor, printed = tempfile.mkstemp()
    os.close(descriptor)
    process = _FORKING.Process(target=commands.run, args=(words, printed))
    process.start()
    return Running(process, Path(printed))


class Machine:
    """A directory whose revisions are known, and the commands that are run in it."""

    def __init__(self, folder: Path, server: ObjectServer) -> None:
        self.folder = folder
        self.server = server
        self.directory = folder / "vm"
        self.image = folder / f"{CANARY}.img"
        self.content: dict[str, bytes] = {}

    def start(self, *words: object) -> Running:
        return start("-b", str(self.directory), *map(str, words))

    def run(self, *words: object, code: int = 0) -> str:
        ended, printed = self.start(*words).wait()
        assert ended == code, (words, printed)
        return printed

    def init(self) -> None:
        self.write(0)
        hook = f"hooks.{CANARY}={{url: {CANARY}}}"
        storage = ["--storage", f"http:{self.server.address}", "-o", f"storage.token={CANARY}"]
        self.run("init", "file", self.image, *storage, "-o", hook.replace(f".{CANARY}", ".absent"))
        # A hook plugin that is missing would hold revisions back.
        self.edit(r"(?ms)^hooks:.*?(?=^\S|\Z)", "")

    def edit(self, old: str, new: str) -> None:
        config = self.directory / "config"
        config.chmod(0o600)
        config.write_text(re.sub(old, new, config.read_text()))

    def write(self, number: int) -> None:
        """Change one chunk of three."""
        parts = [random.Random(0).randbytes(MIB) * 4, random.Random(number).randbytes(MIB), bytes(MIB)]
        self.image.write_bytes(b"".join(parts))

    def backup(self, tags: str = "daily") -> None:
        before = self.ids()
        self.run("backup", tags)
        (new,) = self.ids() - before
        self.content[new] = self.image.read_bytes()

    def ids(self) -> set[str]:
        return {revision.id for revision in open_repository(self.directory).revisions()}

    def rebuild(self) -> None:
        """Make the directory anew."""
        shutil.rmtree(self.directory)
        self.run("init", "--from", f"http:{self.server.address}", "-o", f"storage.token={CANARY}")

    def restore(self, revision_id: str) -> bytes:
        target = self.folder / "restored"
        target.unlink(missing_ok=True)
        self.run("restore", "-r", revision_id, target)
        return target.read_bytes()

    def read(self, revision_id: str) -> bytes:
        """Do as `restore` without a process of its own, of which there would be hundreds."""
        with open_repository(self.directory).image(revision_id) as image:
            return image.pread(0, image.size)

    def check(self) -> None:
        """Restore every revision that is there, and compare it."""
        for revision_id in self.ids():
            restored = self.read(revision_id) if ROUNDS else self.restore(revision_id)
            # A backup that was interrupted after its record has the newest content.
            assert restored == self.content.get(revision_id, self.image.read_bytes()), revision_id
        for name, blob in self.server.blobs.items():
            assert CANARY.encode() not in blob, name


@pytest.fixture
def machine(tmp_path: Path, server: ObjectServer) -> Machine:
    made = Machine(tmp_path, server)
    made.init()
    for number in (1, 2):
        made.write(number)
        made.backup()
    return made


def test_a_lost_directory_is_made_anew(machine: Machine) -> None:
    machine.run("tags", "set", "-r", "0", "manual:kept")
    machine.run("distrust", "-r", "1")
    before = machine.ids()
    names = {path.name: path.read_bytes() for path in machine.directory.glob("[!.]*.[rsm]*") if path.suffix != ".py"}
    machine.rebuild()

    assert machine.ids() == before
    for name, content in names.items():
        assert (machine.directory / name).read_bytes() == content
    machine.check()
    assert {machine.restore(one) for one in before} == set(machine.content.values())
    assert "add a section to its 'config'" in machine.run("backup", "daily", code=1)
    with (machine.directory / "config").open("a") as config:
        config.write(f"source: {{type: file, filename: '{machine.image}'}}\n")
    machine.write(3)
    machine.backup()
    machine.run("purge")
    machine.rebuild()
    assert len(machine.ids()) == 3
    machine.check()


def test_a_server_that_fails_loses_nothing(machine: Machine) -> None:
    codes = []
    for number in range(1, 8):
        machine.write(number + 10)
        before = machine.ids()
        machine.server.blobs.fail(number)
        codes.append(machine.start("backup", "daily").wait()[0])
        machine.server.blobs.acts.clear()
        for new in machine.ids() - before:
            machine.content[new] = machine.image.read_bytes()
    # A chunk that can not be stored fails the backup; a record is published by the next command.
    assert (codes[0], set(codes)) == (1, {0, 1})
    machine.run("expire")
    machine.rebuild()
    assert machine.ids() == machine.content.keys()
    machine.check()


def test_nothing_is_purged_when_nobody_knows_what_is_published(machine: Machine) -> None:
    machine.run("forget", "-r", "0")
    before = dict(machine.server.blobs)
    (name,) = [name for name in before if name.endswith(".rev")]
    machine.server.blobs[name] = b"torn"
    shutil.move(machine.directory / Path(name).name, machine.folder / "elsewhere")

    assert "damaged" in machine.run("purge", code=1) or "is not" in machine.run("purge", code=1)
    assert {key for key in before if "chunks" in key} <= machine.server.blobs.keys()


def test_torn_and_lost_records_are_published_again(machine: Machine) -> None:
    for suffix, content in ((".rev", b"torn"), (".state", b""), (".map", None), (".map", b"torn")):
        name = next(name for name in machine.server.blobs if name.endswith(suffix))
        whole = machine.server.blobs.pop(name)
        if content is not None:
            machine.server.blobs[name] = content
        machine.run("purge")
        assert machine.server.blobs[name] == whole


def test_another_store_at_the_address_is_no_parent(machine: Machine, other: ObjectServer) -> None:
    revision = min(machine.ids())
    other.blobs["store"] = b"objects of backy 3\nanotherstore"
    machine.edit(re.escape(machine.server.address), other.address)
    before = machine.ids()
    machine.backup()

    (new,) = machine.ids() - before
    assert '"parent": null' in (machine.directory / f"{new}.rev").read_text()
    said = machine.run("restore", "-r", revision, machine.folder / "out", code=1)
    assert "anotherstore" in said
    assert {name for name in other.blobs if name.endswith(".rev")} == {f"records/{new}.rev"}


def test_the_store_of_another_repository_is_refused(machine: Machine, other: ObjectServer, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = Machine(tmp_path / "second", other)
    second.init()
    machine.edit(re.escape(machine.server.address), other.address)
    assert "has the records of another repository" in machine.run("backup", "daily", code=1)


def test_all_is_whole_on_another_server(machine: Machine, other: ObjectServer) -> None:
    other.blobs.update(machine.server.blobs)
    machine.server.blobs.clear()
    machine.edit(re.escape(machine.server.address), other.address)
    machine.server = other
    machine.check()
    before = machine.ids()
    machine.write(3)
    machine.backup()
    (new,) = machine.ids() - before
    assert '"parent": null' not in (machine.directory / f"{new}.rev").read_text()
    machine.rebuild()
    assert machine.ids() == machine.content.keys()
    machine.check()


# killed at any step ---------------------------------------------------------------------------------------------------

ACTIONS = {
    "backup": [["backup", "daily"]],
    "forget": [["forget", "-r", "0"], ["purge"]],
    "publish": [["tags", "set", "-r", "0", "manual:x"], ["distrust", "-r", "1"]],
}


class Steps:
    """A machine that is put back before each round."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.before = machine.folder / "before"
        shutil.copytree(machine.directory, self.before, symlinks=True)
        self.blobs = dict(machine.server.blobs)
        machine.write(3)

    def put_back(self) -> None:
        shutil.rmtree(self.machine.directory, ignore_errors=True)
        shutil.copytree(self.before, self.machine.directory, symlinks=True)
        self.machine.server.blobs.acts.clear()
        self.machine.server.blobs.clear()
        self.machine.server.blobs.update(self.blobs)

    def run(self, action: str, at: tuple[int, bool] | None = None) -> int:
        """Run an action, killed at a step; return the number of its steps."""
        self.put_back()
        blobs = self.machine.server.blobs
        before, started = blobs.changes, []

        def kill() -> None:
            started[-1].process.kill()

        if at:
            blobs.at(at[0], kill, after=at[1])
        for words in ACTIONS[action]:
            started.append(self.machine.start(*words))
            code, _ = started[-1].wait()
            if code:
                break
        assert (code == 0) == (at is None), at
        blobs.acts.clear()
        return blobs.changes - before


def test_killed_at_any_step_leaves_a_whole_set(machine: Machine) -> None:
    steps = Steps(machine)
    rounds, sets = [], {}
    for action in ACTIONS:
        before = machine.ids()
        count = steps.run(action)
        sets[action] = [before, machine.ids()]
        rounds += [(action, (step, after)) for step in range(1, count + 1) for after in (False, True)]
        steps.put_back()
    # Each action in turn, from the whole of it.
    random.Random(1).shuffle(rounds)
    for action, at in rounds[: ROUNDS or None]:
        steps.run(action, at)
        killed = machine.folder / "killed"
        shutil.copytree(machine.directory, killed, symlinks=True)
        machine.rebuild()
        before, after = sets[action]
        new = machine.ids() - before
        assert machine.ids() in (before, after) or (action == "backup" and len(new) == 1), (action, at)
        machine.check()
        # The next commands of the one that was killed go on as if nothing had happened.
        shutil.rmtree(machine.directory)
        killed.rename(machine.directory)
        machine.run("backup", "daily")
        machine.run("purge")
        machine.rebuild()
        machine.check()
