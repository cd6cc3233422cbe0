"""Tries crashes of every kind on a repository in a laboratory. `backy selftest` and the contract of storages use it.

A killed process is no kind of its own: it leaves the same as a power loss that loses nothing, which is tried too.
"""

import errno
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from backy.api import CHUNK_SIZE
from backy.errors import BackyError
from backy.testing.clock import Clock
from backy.testing.crashes import CERTAIN, Crash, crashes, distinct, landmarks
from backy.testing.laboratory import BrokenPromiseError, Laboratory, patterned
from backy.testing.recording import Fault
from backy.testing.tree import Tree
from backy.text.phrases import counted

SHORT: Final = bytes(range(250)) * 20


def _back_up_again(laboratory: Laboratory) -> None:
    # What a failed backup leaves was never synced: the next one must not rely on it.
    laboratory.fail()
    laboratory.backup()


def _forget_and_purge(laboratory: Laboratory) -> None:
    laboratory.forget("1")
    laboratory.purge()


ACTIONS: Final[dict[str, Callable[[Laboratory], object]]] = {
    "backup": Laboratory.backup,
    "backup after a failed one": _back_up_again,
    "forget and purge": _forget_and_purge,
}
"""The actions that are interrupted."""


def prepare(laboratory: Laboratory) -> None:
    """Make two revisions, forget one between them, and change the image in every way."""
    # A forgotten revision leaves chunks to purge; chunks change, move, appear, vanish, and the image grows.
    laboratory.content = patterned(0) + bytes(CHUNK_SIZE) + patterned(100) + SHORT
    laboratory.initialize()
    laboratory.backup()
    laboratory.content = patterned(0, 7) + patterned(200) + patterned(400) + SHORT
    laboratory.backup()
    laboratory.forget("1")
    # Only the revision before has the chunk in the middle, so that there is something to purge.
    laboratory.content = patterned(0, 7) + patterned(200) + patterned(100) + SHORT
    laboratory.backup()
    laboratory.content = patterned(0, 9) + patterned(0) + bytes(CHUNK_SIZE) + patterned(100) + patterned(200, 5)
    laboratory.content += SHORT + SHORT


def power_losses(laboratory: Laboratory, action: str, count: int) -> int:
    """Check `count` different states of the disk that a power loss may leave during an action.

    The states at `landmarks` are all checked, and `count` others that are drawn from the whole action. Returns how many
    states were checked.

    Raises:
        BrokenPromiseError: data was lost, or the next backup failed; the text says when the power failed.
    """
    recording = laboratory.record(lambda: ACTIONS[action](laboratory))
    certain = [Crash(after, *extreme) for after in landmarks(recording) for extreme in CERTAIN]
    drawn = crashes(recording.operations, mixtures=2, seed=1)
    # Shuffled, so that a small count has crashes from the whole action. The seed makes a failure repeatable.
    random.Random(action).shuffle(drawn)  # noqa: S311  # no secret
    checked = tried = 0
    for crash, tree in distinct(recording, [*certain, *drawn]):
        tried += crash not in certain
        if tried > count:
            break
        laboratory.put(tree)
        _check(laboratory, crash.after, str(crash))
        checked += 1
    return checked


def failing_calls(laboratory: Laboratory, action: str, count: int, *, lasting: bool) -> int:
    """Make `count` calls of an action fail, one in each run; with `lasting`, all calls that need space from it on.

    Returns the number of runs.

    Raises:
        BrokenPromiseError: data was lost, or the next backup failed; the text names the last calls.
    """
    before, promises = Tree.read(laboratory.recorded, laboratory.blobs), list(laboratory.promises)
    calls = len(laboratory.record(lambda: ACTIONS[action](laboratory)).calls)
    chosen = random.Random(action).sample(range(calls), min(calls, count))  # noqa: S311  # likewise
    for number in chosen:
        # Every run starts from the same directory and the same promises.
        laboratory.put(before)
        laboratory.promises = list(promises)
        fault = Fault(number, errno.ENOSPC if lasting else errno.EIO, lasting)
        failed = laboratory.record(lambda: ACTIONS[action](laboratory), fault)
        _check(laboratory, len(failed.operations), f"call {number} failed: {', '.join(failed.calls[-3:])}")
    return len(chosen)


def _check(laboratory: Laboratory, operations: int, when: str) -> None:
    try:
        laboratory.check(laboratory.state(operations))
    # Any error of a command breaks the promise that it works after a crash.
    except Exception as error:
        raise BrokenPromiseError(f"{when}: {type(error).__name__}: {error}") from error


class SelfTestError(BackyError):
    """A promise was broken; the text says how."""


def selftest(folder: Path, storage: dict[str, Any], count: int) -> Iterator[str]:
    """Try every kind of crash, `count` times each, in a temporary folder below `folder`; yield a line for each part.

    Raises:
        SelfTestError: a promise was broken; images are not safe on this machine.
        BackyError, OSError: the storage can not be used there.
    """
    with tempfile.TemporaryDirectory(prefix=".backy-selftest-", dir=folder) as temporary, _silent():
        laboratories = (Laboratory(Path(temporary) / str(number), Clock(), storage) for number in range(100))

        def trial(try_it: Callable[[Laboratory], int]) -> int:
            laboratory = next(laboratories)
            prepare(laboratory)
            try:
                return try_it(laboratory)
            except BrokenPromiseError as error:
                raise SelfTestError(f"{error}: do not trust images to this machine, and report this") from error

        yield f"backup, forget, purge, restore: {counted(trial(_whole_job), 'revision')} read back"
        for action in ACTIONS:
            states = trial(partial(power_losses, action=action, count=count))
            yield f"power loss during {action}: {counted(states, 'state')}, nothing lost"
            for lasting, what in ((False, "failing disk"), (True, "full disk")):
                calls = trial(partial(failing_calls, action=action, count=count, lasting=lasting))
                yield f"{what} during {action}: {counted(calls, 'call')}, nothing lost"


@contextmanager
def _silent() -> Iterator[None]:
    """Log nothing of what fails on purpose: operators would take it for what this finds."""
    before = logging.root.manager.disable
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _whole_job(laboratory: Laboratory) -> int:
    """Run all actions without crashes; return the number of revisions."""
    for action in ACTIONS.values():
        action(laboratory)
    laboratory.check(laboratory.state(0))
    return len(laboratory.open().records.history())
