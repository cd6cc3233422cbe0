"""A moment of two programs. The second one runs in any case, whatever becomes of backy. Plugins may use it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from select import select
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired, run
from typing import Final

from backy.errors import SourceError

log = logging.getLogger(__name__)
_CGROUPS: Final = Path("/sys/fs/cgroup")
_SYSTEMD: Final = Path("/run/systemd/system")

_SCOPE: Final = ("systemd-run", "--quiet", "--scope", "--collect")
"""Runs a program in a control group of its own, with all else that it would have without."""
_SLEEPER: Final = """
let_go() { n=10; until timeout -k 1 "$0" "$@" >/dev/null 2>&1 || test $((n -= 1)) = 0; do sleep 1; done; }
echo
word=$(timeout "$0" head -c 1); code=$?
test -n "$word" && exit
(echo)
let_go "$@"
test $code = 124 && test -z "$(timeout "$0" head -c 1)" && let_go "$@"
"""
"""Runs the arguments after the first one unless it gets a byte within so many seconds; at once if nobody can send one
any more, and then once more if it has run them at the limit. It tries ten times until they succeed. It writes a line so
that others know that it is there, and another one before it runs them: in a subshell, which dies if nobody reads it."""


@dataclass(frozen=True)
class Rested:
    """Writers at rest: a `Moment`."""

    frozen: bool
    """Whether all file systems are frozen."""


@contextmanager
def resting(before: Sequence[str], after: Sequence[str], limit: timedelta, *, frozen: bool = False) -> Iterator[Rested]:
    """Run the program `before`, and `after` at the end, or once `limit` is over.

    If this process is killed or stopped, a process outside of its session and of its control group runs `after`. It may
    run twice, and also if `before` has failed. `frozen` tells whether `before` freezes all file systems.

    Raises:
        SourceError: a program fails, or the writers did not rest all the time.
    """
    sleeper = _sleeper(after, limit)
    assert sleeper.stdin  # noqa: S101  # both are pipes
    assert sleeper.stdout  # noqa: S101  # likewise
    word, failed = b"", True
    try:
        # if backy alone is killed, the sleeper waits for the end of this, which could bring them to rest later
        _run("before", before, limit, [sleeper.stdin.fileno()])
        yield Rested(frozen)
        # the first thing it does at the limit
        in_time, failed = not select([sleeper.stdout], [], [], 0)[0], False
    finally:
        try:
            _run("after", after, limit)
            # only now: whoever is killed before leaves the rest to the sleeper
            word = b"."
        except SourceError as error:
            # what came first says why
            if not failed:
                raise
            log.warning("%s", error)
        finally:
            # without a word, it tries once more what has failed
            with suppress(OSError):
                sleeper.communicate(word)
    if not in_time:
        text = f"snapshots took longer than the limit of the moment, {limit.total_seconds():g} s"
        raise SourceError(f"{text}, so the writers did not rest all the time; a longer 'limit' gives more time")


def _run(key: str, command: Sequence[str], limit: timedelta, descriptors: Sequence[int] = ()) -> None:
    """Run a program of the section `moment`; raise SourceError if it fails."""
    seconds = limit.total_seconds()
    try:
        done = run(command, stdin=DEVNULL, capture_output=True, timeout=seconds, check=False, pass_fds=descriptors)  # noqa: S603  # the operator chose it
    except OSError as error:
        raise SourceError(f"the program '{key}' of the moment can not be run: {error}") from error
    except TimeoutExpired as error:
        raise SourceError(f"the program '{key}' of the moment took longer than {seconds:g} s and was ended") from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
        raise SourceError(f"the program '{key}' of the moment ended with exit code {done.returncode}: {said}")


def _sleeper(after: Sequence[str], limit: timedelta) -> Popen[bytes]:
    """Start the process that runs `after` if this one does not, and wait until it is there."""
    for scope in (_SCOPE, ()) if _SYSTEMD.exists() else ((),):
        command = [*scope, "sh", "-c", _SLEEPER, f"{limit.total_seconds():g}", *after]
        sleeper = Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True, bufsize=0)  # noqa: S603  # likewise
        if sleeper.stdout and sleeper.stdout.read(1):
            if not scope and not _freed(sleeper.pid):
                log.warning("if all of backy's control group is killed, nothing runs the program 'after' of the moment")
            return sleeper
        sleeper.communicate()
    raise SourceError("nothing can be started that ends the moment if backy is killed, so it does not begin")


def _freed(pid: int) -> bool:
    """Move a process out of the control groups of this one; tell whether that was possible."""
    unified = _CGROUPS / "cgroup.procs"
    try:
        for procs in [unified] if unified.exists() else _CGROUPS.glob("*/cgroup.procs"):
            procs.write_text(f"{pid}\n")
    except OSError:
        return False
    return True
