"""Crashes of every kind on a repository in a laboratory, as many as one has time for.

A process that is killed leaves what it had done until then, which is one of the power losses that are tried at every
call: the one that loses nothing.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Final

from backy.api import CHUNK_SIZE
from backy.testing.crashes import crashes, distinct
from backy.testing.laboratory import BrokenPromiseError, Laboratory, patterned
from backy.testing.recording import Fault
from backy.testing.tree import Tree

SHORT: Final = bytes(range(250)) * 20


def _back_up(laboratory: Laboratory) -> None:
    laboratory.backup()


def _forget_and_purge(laboratory: Laboratory) -> None:
    laboratory.forget("1")
    laboratory.purge()


ACTIONS: Final[dict[str, Callable[[Laboratory], None]]] = {"backup": _back_up, "forget and purge": _forget_and_purge}
"""What is interrupted."""


def prepare(laboratory: Laboratory) -> None:
    """Make two revisions, with one forgotten between them, and an image that has changed since in every way."""
    laboratory.content = patterned(0) + bytes(CHUNK_SIZE) + patterned(100) + SHORT
    laboratory.initialize()
    laboratory.backup()
    laboratory.content = patterned(0, 7) + patterned(200) + patterned(100) + SHORT
    laboratory.backup()
    laboratory.forget("1")
    laboratory.backup()
    laboratory.content = b"".join(
        [patterned(0, 9), patterned(0), bytes(CHUNK_SIZE), patterned(100), patterned(200, 5), SHORT, SHORT]
    )
    laboratory.settle()


def power_losses(laboratory: Laboratory, action: str, count: int) -> int:
    """Let the power fail during an action, at `count` of all the instants and with all that it may leave on the disk.

    Returns how many different states of the disk were looked at.

    Raises:
        BrokenPromiseError: something was lost, or nothing works afterwards; the text says when the power failed.
    """
    recording = laboratory.record(lambda: ACTIONS[action](laboratory))
    chosen = crashes(recording.operations, mixtures=2, seed=1)
    random.Random(action).shuffle(chosen)  # noqa: S311  # chance that can be had again
    tried = 0
    for crash, tree in distinct(recording.before, recording.operations, chosen):
        laboratory.put(tree)
        _check(laboratory, crash.after, str(crash))
        tried += 1
        if tried == count:
            break
    return tried


def failing_calls(laboratory: Laboratory, action: str, count: int, *, lasting: bool) -> int:
    """Let the operating system refuse calls of an action: `count` single ones, or all that need space from one on.

    Returns how many calls failed.

    Raises:
        BrokenPromiseError: something was lost, or nothing works afterwards; the text names the calls before.
    """
    before, promises = Tree.read(laboratory.directory), list(laboratory.promises)
    calls = len(laboratory.record(lambda: ACTIONS[action](laboratory)).calls)
    chosen = random.Random(action).sample(range(calls), min(calls, count))  # noqa: S311  # likewise
    for number in chosen:
        laboratory.put(before)
        laboratory.promises = list(promises)
        fault = Fault(number, errno.ENOSPC if lasting else errno.EIO, lasting)
        failed = laboratory.record(lambda: ACTIONS[action](laboratory), fault)
        _check(laboratory, len(failed.operations), f"call {number} failed: {', '.join(failed.calls[-3:])}")
    return len(chosen)


def _check(laboratory: Laboratory, operations: int, when: str) -> None:
    try:
        laboratory.check(laboratory.state(operations))
    except Exception as error:
        raise BrokenPromiseError(f"{when}: {type(error).__name__}: {error}") from error
