"""Whether backy keeps its promises on a particular file system: what `backy selftest` does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from backy.errors import BackyError
from backy.testing.clock import Clock
from backy.testing.laboratory import BrokenPromiseError, Laboratory
from backy.testing.trials import ACTIONS, failing_calls, power_losses, prepare
from backy.text.phrases import counted


class SelfTestError(BackyError):
    """A promise was broken, or the test could not be made; the text says how."""


def selftest(folder: Path, storage: dict[str, Any], count: int) -> Iterator[str]:
    """Try every kind of crash, `count` times each, in a temporary folder below `folder`; yield a line on each part.

    Raises:
        SelfTestError: a promise was broken: images are not safe on this machine.
        BackyError, OSError: the storage can not be used there.
    """
    with tempfile.TemporaryDirectory(prefix=".backy-selftest-", dir=folder) as temporary:
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


def _whole_job(laboratory: Laboratory) -> int:
    """Do without crashes what is interrupted later."""
    for action in ACTIONS.values():
        action(laboratory)
    laboratory.check(laboratory.state(0))
    return len(laboratory.open().records.history())
