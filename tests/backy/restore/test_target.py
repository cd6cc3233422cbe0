"""Targets that a source offers, seen from the command line; files and devices are in test_restore.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.errors import ExitCode
from backy.plugins.discovery import Kind
from backy.plugins.loading import load
from backy.repository.repository import Repository

SOURCE = """
from backy.hookspecs import hookimpl
@hookimpl
def backy_source(config): ...
@hookimpl
def backy_source_config(argument): return {}
"""
TAPES = (
    SOURCE
    + """
import json, os, signal, threading
from contextlib import contextmanager
from pathlib import Path
from backy.api import ConfigError, TargetError
class Tape:
    def __init__(self, path, size):
        self.content = bytearray(b"?" * size)
        self.touched = bytearray(size)
        self.path = path
        self.lock = threading.Lock()
    def put(self, data, offset):
        with self.lock:
            assert not any(self.touched[offset:offset + len(data)]), "written twice"
            self.touched[offset:offset + len(data)] = b"x" * len(data)
            self.content[offset:offset + len(data)] = data
    def pwrite(self, data, offset):
        if "full" in self.path.name:
            raise OSError(28, "No space left on device")
        if "killed" in self.path.name:
            os.kill(os.getpid(), signal.SIGTERM)
        self.put(data, offset)
    def zero(self, offset, length):
        self.put(bytes(length), offset)
    def finish(self):
        if "loose" in self.path.name:
            raise TargetError("the tape came loose")
        assert all(self.touched)
        self.path.write_bytes(self.content)
@contextmanager
def opened(path, size, force):
    if path.exists() and not force:
        raise TargetError(f"tape {path} has an image already; --force replaces it")
    Path(f"{path}.log").write_text("open")
    try:
        yield Tape(path, size)
    finally:
        Path(f"{path}.log").write_text("closed")
@hookimpl
def backy_restore_target(argument, options, config, size, force):
    if unknown := set(options) - {"colour"}:
        raise ConfigError(f"a tape has no option '{unknown.pop()}'")
    path = Path(argument)
    if path.name == "defect":
        raise ValueError("two\\nlines")
    Path(f"{path}.json").write_text(json.dumps([dict(options), dict(config), size, force]))
    return opened(path, size, force)
"""
)
PROGRAM = [sys.executable, "-c", "from backy.cli.main import main; main()"]


@pytest.fixture(autouse=True)
def revision(backy: Callable, repository: Repository) -> str:
    """The id of the only revision."""
    assert backy("-b", repository.directory, "backup", "daily").code == 0
    return repository.records.history()[0].id


@pytest.fixture
def restore(backy: Callable, repository: Repository) -> Callable:
    """Call `backy restore`."""
    return lambda *arguments: backy("-b", repository.directory, "restore", *arguments)


@pytest.fixture
def tape(distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the source `tape` restores to; it lies in the current folder."""
    distribution("acme", {"backy.sources": ["tape"]}, TAPES)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tape1"


def test_hook_backy_restore_target_is_given_all_that_the_user_said(restore: Callable, tape: Path, image: Path) -> None:
    done = restore("-o", "colour=red=green", f"tape:{tape}")

    assert (done.code, done.out, done.err) == (0, "", "")
    assert tape.read_bytes() == image.read_bytes()
    assert Path(f"{tape}.json").read_text() == f'[{{"colour": "red=green"}}, {{}}, {image.stat().st_size}, false]'
    assert Path(f"{tape}.log").read_text() == "closed"


def test_hook_backy_restore_target_is_given_the_source_of_its_own_type(
    restore: Callable, repository: Repository, tape: Path
) -> None:
    config = repository.directory / "config"
    config.chmod(0o600)
    config.write_text("format: 3\nsource: {type: tape, drive: 7}\n")

    assert restore(f"tape:{tape}").code == 0
    assert '{"type": "tape", "drive": 7}' in Path(f"{tape}.json").read_text()


def test_hook_backy_restore_target_may_be_missing(
    restore: Callable, distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    distribution("acme", {"backy.sources": ["disc"]}, SOURCE)

    assert load(Kind.SOURCE, "disc")
    assert restore("disc:7").err == (
        "Error: source 'disc' of acme 1.0 does not offer that: it has no hook backy_restore_target; "
        "to restore to a file of this name write './disc:7'\n"
    )
    assert not (tmp_path / "disc:7").exists()


def test_what_is_there_is_replaced_by_force_only(restore: Callable, tape: Path, image: Path) -> None:
    tape.write_bytes(b"precious")
    refused = restore(f"tape:{tape}")

    assert (refused.code, refused.err) == (1, f"Error: tape {tape} has an image already; --force replaces it\n")
    assert tape.read_bytes() == b"precious"
    assert restore("--force", f"tape:{tape}").code == 0
    assert tape.read_bytes() == image.read_bytes()


@pytest.mark.parametrize(
    ("name", "code", "error"),
    [
        (
            "full",
            ExitCode.FULL,
            "source 'tape' of acme 1.0 failed in pwrite(bytes, 0): No space left on device; tape:{} is incomplete",
        ),
        ("loose", ExitCode.FAILED, "the tape came loose; tape:{} is incomplete"),
    ],
)
def test_a_target_that_fails_is_called_incomplete(
    restore: Callable, tape: Path, name: str, code: ExitCode, error: str
) -> None:
    target = tape.with_name(name)
    done = restore(f"tape:{target}")

    assert (done.code, done.err) == (code, f"Error: {error.format(target)}\n")
    assert Path(f"{target}.log").read_text() == "closed"


def test_a_damaged_chunk_ends_it(restore: Callable, repository: Repository, revision: str, tape: Path) -> None:
    chunks = repository.records.read_map(repository.records.read(revision))
    next(repository.directory.glob(f"chunks/*/{chunks[4].hex()}.*")).unlink()
    done = restore(f"tape:{tape}")

    assert done.code == 1
    assert done.err.startswith(f"Error: chunk {chunks[4].hex()[:12]} at byte ")
    assert done.err.endswith(f"; tape:{tape} is incomplete\n")
    assert not tape.exists()


def test_a_defect_of_the_plugin_is_named(restore: Callable, tape: Path) -> None:
    assert restore(f"tape:{tape.with_name('defect')}").err == (
        "Error: source 'tape' of acme 1.0 is broken: hook backy_restore_target failed with ValueError: two lines\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["tap:x"], 1, "no source 'tap'; did you mean 'tape'? installed: "),
        (["tap:x"], 1, "; to restore to a file of this name write './tap:x'"),
        ([":x"], 1, "no source ''"),
        (["-o", "size=3", "tape:x"], 1, "a tape has no option 'size'"),
        (["-o", "colour=red", "x"], 1, "options are for targets like TYPE:ARGUMENT; 'x' is a path"),
        (["-o", "colour=red", "-"], 1, "options are for targets like TYPE:ARGUMENT; '-' is standard output"),
        (["-o", "colour", "tape:x"], 2, "'colour' is not of the form NAME=VALUE"),
        (["-o", "=red", "tape:x"], 2, "'' is not of the form NAME=VALUE"),
        (["-o", "colour=red", "-o", "colour=", "tape:x"], 2, "'colour' is given twice"),
    ],
)
def test_what_is_not_understood_makes_nothing(
    restore: Callable, tape: Path, arguments: list[str], code: int, error: str
) -> None:
    before = set(tape.parent.iterdir())
    done = restore(*arguments)

    assert done.code == code
    assert error in done.err
    assert set(tape.parent.iterdir()) == before


@pytest.mark.parametrize("path", ["./tape:x", "folder/tape:x", "{}/tape:x"])
def test_a_file_may_have_a_colon_in_its_name(restore: Callable, tape: Path, image: Path, path: str) -> None:
    tape.with_name("folder").mkdir()

    assert restore(path.format(tape.parent)).code == 0
    assert Path(path.format(tape.parent)).read_bytes() == image.read_bytes()


def test_an_interrupted_restore_leaves_no_target_open(repository: Repository, tape: Path, tmp_path: Path) -> None:
    target = tape.with_name("killed")
    call = [*PROGRAM, "-b", repository.directory, "restore", f"tape:{target}"]
    environment = {"PYTHONPATH": str(tmp_path / "site-packages")}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)

    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "Error: interrupted")
    assert f"tape:{target} is incomplete" in done.stderr
    assert Path(f"{target}.log").read_text() == "closed"
