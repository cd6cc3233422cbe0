"""Copies by the real commands, and by a real sshd with forced commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex

import pytest

from backy.copies.ends import borrowed, end_of, lend
from backy.errors import ExitCode
from backy.exchange.wire import NOTHING, Wire
from backy.repository.running import use_number
from backy.testing.laboratory import Laboratory, patterned
from tests.backy.copies.conftest import BACKY
from tests.conftest import Result, tree
from tests.copying import acts, same, sound


@pytest.fixture
def command(backy: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line, which starts the real one for the other side."""
    monkeypatch.setattr(sys, "argv", [str(BACKY)])
    return backy


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_by_a_key_that_may_only_read(origin: Laboratory, command: Callable, base: Path, tmp_path: Path) -> None:
    shutil.move(origin.directory, base / "vm")
    origin.directory = base / "vm"
    copy = tmp_path / "copy"
    result = command("-b", copy, "pull", "ssh://reader/vm")
    assert (result.code, result.err) == (0, "")
    history = same(origin, copy)
    assert lines(result.out)[-1].startswith("Copied 3 revisions, 16.0 MiB")
    assert {one.state.origin.place for one in history} == {"ssh://reader/vm"}
    assert acts(origin.directory).count("sent") == 2  # one by the copy that `origin` comes with

    before = tree(base)
    made = origin.directory.with_name("other")
    shutil.copytree(copy, tmp_path / "other")
    result = command("-b", tmp_path / "other", "push", "ssh://reader/other")
    assert result.code == ExitCode.FAILED
    assert lines(result.err) == ["Error: the other side says: it may only read here"]
    assert tree(base) == before
    assert not made.exists()


def test_by_a_key_that_may_only_append(origin: Laboratory, command: Callable, base: Path, tmp_path: Path) -> None:
    result = command("-b", origin.directory, "push", "ssh://writer/vm")
    assert (result.code, result.err) == (0, "")
    history = same(origin, base / "vm")
    assert {one.state.origin.place for one in history} == {"127.0.0.1"}
    assert acts(base / "vm") == ["begin", "copy", "copy", "copy", "copy"]

    before = tree(base)
    result = command("-b", tmp_path / "stolen", "pull", "ssh://writer/vm")
    assert result.code == ExitCode.FAILED
    assert lines(result.err) == ["Error: the other side says: it may only add revisions here"]
    assert tree(base) == before
    assert not (tmp_path / "stolen").exists()

    use_number(origin.directory, 99_000)
    origin.backup()
    result = command("-b", origin.directory, "push", "ssh://writer/vm")
    assert result.code == ExitCode.FAILED
    assert len(lines(result.err)) == 1
    assert "1 revision could not be copied: " in result.err
    assert {name: one for name, one in tree(base).items() if "journal" not in name} == {
        name: one for name, one in before.items() if "journal" not in name
    }
    for name in ("..", "vm/..", ".ssh", "vm/data"):
        result = command("-b", origin.directory, "push", f"ssh://writer/{name}")
        assert result.code == ExitCode.FAILED


def test_much_is_pushed_by_several_connections(origin: Laboratory, command: Callable, base: Path) -> None:
    origin.content = b"".join(map(patterned, range(300, 312)))
    origin.backup()
    result = command("-b", origin.directory, "push", "ssh://writer/vm")
    assert (result.code, result.err) == (0, "")
    same(origin, base / "vm")


def test_a_connection_is_lent_to_the_same_user_only() -> None:
    name, (reading, other), (there, writing) = token_hex(16), os.pipe(), os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb") as second, ExitStack() as stack:
        lending = threading.Thread(target=lend, args=(name, Wire(pipe, second)))
        lending.start()
        found = strangers(name)
        while found == "refused":  # it has not begun to listen
            found = strangers(name)
        assert found == "nothing"
        (mine,) = borrowed(names := {name}, stack)
        assert not names
        mine.send(NOTHING)
        assert os.read(there, 100)
        assert lending.is_alive()
        stack.close()
        lending.join()
    for descriptor in (other, there):
        os.close(descriptor)


def test_connections_that_never_come_cost_nothing() -> None:
    with ExitStack() as stack:
        before = {*Path("/proc/self/fd").iterdir()}
        assert [*borrowed({token_hex(16), token_hex(16)}, stack)] == []
        assert {*Path("/proc/self/fd").iterdir()} == before
    # one that nobody answers must not hold up what the others have done
    assert "-oConnectTimeout=30" in end_of("ssh://host/vm", "--append").command


def strangers(name: str) -> str:
    """Return what becomes of the attempt of another user."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setuid(65534)
            with ExitStack() as stack:
                names = {name}
                found = [*borrowed(names, stack)]
                os.write(writing, b"refused" if names else b"nothing" if not found else b"lent")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        return answer.read()


def test_what_ssh_says_is_shown(origin: Laboratory, command: Callable, base: Path, tmp_path: Path) -> None:
    (base.parent / "nobody").write_text("no key")
    result = command("-b", tmp_path / "copy", "pull", "ssh://nobody/vm")
    assert result.code == ExitCode.FAILED
    assert "Permission denied" in result.err
    assert lines(result.err)[-1].startswith("Error: the other side has ended")
    result = command("-b", tmp_path / "copy", "pull", "ssh://reader/none")
    assert result.code == ExitCode.FAILED
    assert len(lines(result.err)) == 1
    assert not (tmp_path / "copy").exists()


def test_without_ssh(command: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    result = command("-b", tmp_path / "copy", "pull", "ssh://host/vm")
    assert result.code == ExitCode.FAILED
    assert lines(result.err) == ["Error: ssh can not be started, install openssh-client: No such file or directory"]


def test_a_directory(origin: Laboratory, command: Callable, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    result = command("-b", copy, "pull", origin.directory, "--rate", "100M")
    assert (result.code, result.err) == (0, "")
    same(origin, copy)
    made = origin.backup()
    result = command("-b", origin.directory, "push", copy, "--dry-run")
    assert (result.code, result.err) == (0, "")
    assert lines(result.out) == [f"Would copy {made.id}", "Would copy 1 revision, 0 Bytes of chunks that are not there"]
    result = command("-b", origin.directory, "push", copy, "--json")
    assert (result.code, result.err) == (0, "")
    assert f'"{made.id}"' in result.out
    same(origin, copy)
    (copy / "config").write_text("nonsense")
    result = command("-b", origin.directory, "push", copy)
    assert result.code == ExitCode.FAILED
    assert len(lines(result.err)) == 1


def test_scrub_repairs_from_a_copy(
    origin: Laboratory, copy: Path, command: Callable, spoil: Callable, tmp_path: Path
) -> None:
    repository = origin.open()
    spoil(repository, repository.records.history()[0], 2)
    result = command("-b", origin.directory, "scrub", "deep", "--repair-from", copy)
    assert result.code == 0, result.err
    same(origin, copy)
    result = command("-b", origin.directory, "scrub", "deep")
    assert (result.code, result.err) == (0, "")


def test_a_server_that_is_lost(origin: Laboratory, command: Callable, base: Path, tmp_path: Path) -> None:
    """From an empty machine to a disk by two commands, and from the copy without backy."""
    assert command("-b", origin.directory, "push", "ssh://writer/vm").code == 0
    newest = origin.open().records.history()[-1]
    shutil.rmtree(origin.directory)

    disk = tmp_path / "disk.img"
    for words in (["-b", tmp_path / "vm", "pull", "ssh://reader/vm"], ["-b", tmp_path / "vm", "restore", disk]):
        result = command(*words)
        assert result.code == 0, result.err
    assert disk.read_bytes() == origin.content
    sound(tmp_path / "vm")

    disk.unlink()
    program = [sys.executable, "-I", base / "vm/restore.py", newest.id, disk]
    subprocess.run(program, check=True, capture_output=True)
    assert disk.read_bytes() == origin.content
