"""Commands that are killed: both sides stay whole, and the next command goes on."""

from __future__ import annotations

import itertools
import logging
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.backy_storages_s3.conftest import Machine
from tests.backy_storages_s3.proxy import Proxy, Request

log = logging.getLogger(__name__)
MIB = 2**20
FORGET = ["forget", "-r", "1", "--force", "--reason", "as often as it takes"]
Moment = Callable[[Request], bool]
"""Tells whether it is the request at which a command is killed."""


def written(machine: Machine, number: int) -> bytes:
    content = random.Random(0).randbytes(5 * MIB) + random.Random(number).randbytes(5 * MIB)
    machine.image.write_bytes(content)
    return content


@dataclass
class Seen(Machine):
    """A machine whose requests go through a proxy."""

    proxy: Proxy


@pytest.fixture
def seen(machine: Machine, proxy: Proxy) -> Seen:
    return Seen(machine.folder, machine.backy, {**machine.section, "endpoint": proxy.endpoint}, proxy)


@pytest.fixture
def other(seen: Machine, tmp_path: Path) -> Machine:
    """Another machine, which knows only what is in the bucket."""
    (tmp_path / "other").mkdir()
    return Machine(tmp_path / "other", seen.backy, seen.section)


@pytest.mark.parametrize("kind", ["PUT packs/", "PUT .packs", "PUT .map", "PUT .rev", "PUT lease", "DELETE"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_a_request_leaves_a_whole_set(seen, other, kind, when):
    first = written(seen, 1)
    seen.init()
    seen.run("backup", "daily")
    second = written(seen, 2)
    if kind == "DELETE":
        seen.run("backup", "daily")
        seen.run("forget", "-r", "1")
    words = ["purge", "--trash"] if kind == "DELETE" else ["backup", "daily"]
    if kind == "PUT lease":
        (seen.directory / "s3/memory").unlink()
    verb, _, part = kind.partition(" ")
    assert killed(seen, lambda one: one.kind == verb and part in f"/{one.name}", when, words)
    other.rebuild()
    assert other.restored() in {first, second}
    seen.run(*words)
    seen.run("scrub", "deep")
    assert seen.restored() == second
    seen.run("purge")
    other.rebuild()
    assert other.restored() == second


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", ["backup", "forget", "purge", "pull"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_each_request_leaves_a_whole_set(seen, other, command, when):
    """One request further in each round, until the command ends before it."""
    words = {
        "backup": ["backup", "daily"],
        "forget": FORGET,
        "purge": ["purge", "--trash"],
        "pull": ["pull", "--storage", seen.place, *seen.options(), seen.folder / "local"],
    }[command]
    contents = [make_ready(seen, command, number) for number in range(2)]
    for number in itertools.count():
        if not killed(seen, lambda one, number=number: one.number >= number, when, words):
            break
        if "store" in seen.objects():
            other.rebuild()
            # the record of a first copy may not be there yet
            assert not any(other.directory.glob("*.rev")) or other.restored() in contents[-2:]
        if command in {"backup", "pull"}:
            seen.run(*words)
        assert seen.restored() == contents[-1]
        seen.run("scrub", "deep")
        contents.append(make_ready(seen, command, number + 2))
    log.info("%s was killed %s each of %d requests", command, when, number)
    assert number > 3


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", ["init", "init --from"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_killed_while_it_is_made_is_made_the_next_time(seen, command, when):
    """Each round has a prefix of its own."""
    first, prefix = written(seen, 0), seen.section["prefix"]
    for number in itertools.count():
        shutil.rmtree(seen.directory, ignore_errors=True)
        seen.section["prefix"] = f"{prefix}/{number}"
        words = ["init", "--storage", seen.place, *seen.options(), "file", seen.image]
        if command != "init":
            seen.run(*words)
            seen.run("backup", "daily")
            shutil.rmtree(seen.directory)
            words = ["init", "--from", seen.place, *seen.options()]
        if not killed(seen, lambda one, number=number: one.number >= number, when, words):
            break
        if not (seen.directory / "config").exists():
            done = seen.backy("-b", seen.directory, *words)
            # if it was published already, that is what it says
            if done.code:
                assert "'backy init --from' makes its directory anew" in done.err
                seen.run("init", "--from", seen.place, *seen.options())
                seen.run("promote", "file", seen.image)
        if command == "init":
            seen.run("backup", "daily")
        assert seen.restored() == first
    log.info("%s was killed %s each of %d requests", command, when, number)
    assert number > 3


def make_ready(machine: Machine, command: str, number: int) -> bytes:
    """Make what the command works on; return the newest image."""
    content = written(machine, number)
    local = machine.folder / "local"
    if command == "pull":
        if not number:
            machine.backy("-b", local, "init", "file", machine.image)
        assert machine.backy("-b", local, "backup", "daily").code == 0
        return content
    if not number:
        machine.init()
    if command != "backup" or not number:
        machine.run("backup", "daily")
    if command == "purge" and number:
        machine.run(*FORGET)
    return content


def killed(machine: Seen, moment: Moment, when: str, words: list[str]) -> bool:
    """Run a command that is killed at a request, before it has an effect or when it had one; tell whether it was."""
    command = [Path(sys.executable).with_name("backy"), "-b", machine.directory, *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    at: list[Request] = []

    def fault(request: Request) -> str | None:
        if at or not moment(request):
            return None
        at.append(request)
        if when == "before":
            process.kill()
            return "drop"
        return "lose kill"

    proxy = machine.proxy
    proxy.forget()
    proxy.fault, proxy.killing = fault, process.kill
    said = process.communicate()[0]
    proxy.fault = lambda _: None
    assert process.returncode == (-9 if at else 0), said
    return bool(at)
