"""Writers that rest go on in any case: after errors, signals, a kill of all of backy, and when backy stands still."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest

from backy import resting as module
from backy.errors import SourceError
from backy.resting import resting

CGROUPS = Path("/sys/fs/cgroup")
LONG = timedelta(minutes=5)
"""A limit that no test reaches: whoever lets writers go on did not wait for it."""
HELD = """
import sys, time
from datetime import timedelta
from backy.resting import resting
with resting(["touch", "resting"], ["rm", "resting"], timedelta(seconds=float(sys.argv[1]))):
    print("at rest", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    """A file that is there while the writers rest."""
    return tmp_path / "resting"


def go_on(flag: Path) -> bool:
    """Wait until the writers go on."""
    end = time.monotonic() + 60
    while flag.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return not flag.exists()


def appears(path: Path) -> bool:
    """Wait for a file."""
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return path.exists()


@contextmanager
def at_rest(flag: Path, limit: timedelta = LONG) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a session of its own that keeps the writers at rest."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(limit.total_seconds())],
        cwd=flag.parent,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "at rest\n"
            assert flag.exists()
            yield process
        finally:
            process.kill()


@pytest.fixture
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A control group that is empty."""
    unified = (CGROUPS / "cgroup.procs").exists()
    folder = CGROUPS / ("" if unified else "pids") / f"backy-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"NOT TESTED: no control group can be made: {error}")
    yield folder
    end = time.monotonic() + 60
    while (folder / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.01)
    folder.rmdir()


def test_they_rest_as_long_as_the_context_lasts(flag: Path) -> None:
    with resting(["touch", str(flag)], ["rm", str(flag)], LONG, frozen=True) as rested:
        assert flag.exists()
        assert rested.frozen
    assert not flag.exists()


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_they_go_on_after_an_error_which_stays(flag: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), resting(["touch", str(flag)], ["rm", str(flag)], LONG):
        raise error
    assert not flag.exists()


def test_they_go_on_if_they_did_not_all_rest(flag: Path) -> None:
    before = ["sh", "-c", f"touch {flag}; echo 'no answer' >&2; exit 3"]

    with pytest.raises(SourceError, match="'before' of the moment ended with exit code 3: no answer"):
        resting(before, ["rm", str(flag)], LONG).__enter__()
    assert not flag.exists()


@pytest.mark.parametrize(("before", "why"), [(["/no/such"], "can not be run"), (["sleep", "60"], "took longer than")])
def test_a_program_that_can_not_bring_them_to_rest_is_an_error(flag: Path, before: list[str], why: str) -> None:
    with pytest.raises(SourceError, match=why):
        resting(before, ["rm", "-f", str(flag)], timedelta(seconds=0.2)).__enter__()


def test_what_lets_them_go_on_is_tried_again_if_it_fails(flag: Path, tmp_path: Path) -> None:
    # fails twice
    after = ["sh", "-c", f"mkdir {tmp_path}/once || mkdir {tmp_path}/twice || {{ rm {flag}; exit 0; }}; exit 1"]

    with pytest.raises(SourceError, match="'after'"), resting(["touch", str(flag)], after, LONG):
        pass
    assert not flag.exists()


def test_they_go_on_at_the_limit_and_the_snapshots_are_no_good(flag: Path) -> None:
    after = ["sh", "-c", f"rm -f {flag}; sleep 0.1"]

    moment = resting(["touch", str(flag)], after, timedelta(seconds=0.2))
    moment.__enter__()
    assert go_on(flag)
    # it does not matter whether the program has ended
    with pytest.raises(SourceError, match="longer than the limit of the moment"):
        moment.__exit__(None, None, None)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_they_go_on_at_once_when_backy_is_killed(flag: Path, number: int, kill: Callable[[int, int], None]) -> None:
    with at_rest(flag) as process:
        kill(process.pid, number)
        assert go_on(flag)


def test_they_go_on_if_backy_is_killed_while_they_are_brought_to_rest(flag: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "go")
    before = ["sh", "-c", "echo >begun; read word <go; touch resting; touch done"]
    code = f"from datetime import timedelta as t; from backy.resting import resting as r; r({before}, ['sh', '-c', "
    code += "'rm resting && touch gone'], t(minutes=5)).__enter__()"
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as backy:
        (tmp_path / "begun").read_text()
        backy.kill()
    (tmp_path / "go").write_text("\n")
    assert appears(tmp_path / "gone")
    assert (tmp_path / "done").exists()
    assert not flag.exists()


def test_a_systemd_that_refuses_is_not_needed(
    flag: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("systemd-run") is None:
        pytest.skip("NOT TESTED: moments under systemd, for systemd-run is missing")
    # the real one, which understands what it is told, and finds no systemd here
    monkeypatch.setattr(module, "_SYSTEMD", Path("/"))
    with resting(["touch", str(flag)], ["rm", str(flag)], LONG):
        assert flag.exists()
    assert not flag.exists()
    assert "Failed to connect to bus" in capfd.readouterr().err


def test_they_go_on_when_all_of_the_control_group_is_killed(flag: Path, cgroup: Path) -> None:
    starting = ["sh", "-c", f'echo $$ >{cgroup}/cgroup.procs && exec "$@"', "sh", sys.executable, "-c", HELD, "300"]
    with subprocess.Popen(starting, cwd=flag.parent, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "at rest\n"
            for pid in map(int, (cgroup / "cgroup.procs").read_text().split()):
                # one that has ended is listed for a moment
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert go_on(flag)
        finally:
            process.kill()


def test_they_go_on_at_the_limit_when_backy_is_stopped(flag: Path) -> None:
    with at_rest(flag, timedelta(seconds=2)) as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert go_on(flag)
