"""The verifier `changed`: reads what the source says has changed, and all else in turns, lest it be just believed.

The file `.changed` in the repository has the number of the next turn. It goes on only when everything that was looked
at was right: a chunk that is wrong is looked at again until it is dealt with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from backy.api import CHUNK_SIZE, Config, Image, Job, MismatchHandler, Progress, Report, Snapshot, Verifier, chunk_count
from backy.config import BareConfig, typed
from backy.durable import write_file
from backy.hookspecs import hookimpl
from backy.image.spans import spans
from backy.verifiers.comparison import chunks_with_data, compare

log = logging.getLogger(__name__)
STATE: Final = ".changed"
TURNS: Final = 100
"""After so many backups every chunk was looked at."""


class ChangedVerifier:
    """Compares every chunk that is said to have changed and a hundredth of the others; all if nothing is said."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare what is due, in the order of the image."""
        total = chunk_count(snapshot.size)
        changed = changed_chunks(snapshot)
        if changed is None:
            self._compare(snapshot, image, chunks_with_data(snapshot, image), mismatch, progress)
            return Report("changed", checked=total, total=total)
        turn = self._turn()
        others = rotation(turn, total, changed)
        log.info("verifying %d changed chunks and %d others, turn %d", len(changed), len(others), turn)
        if self._compare(snapshot, image, sorted([*changed, *others]), mismatch, progress):
            write_file(self._state, b"%d\n" % (turn + 1))
        return Report("changed", len(changed) + len(others), total)

    @staticmethod
    def _compare(
        snapshot: Image, image: Image, indexes: Iterable[int], mismatch: MismatchHandler, progress: Progress
    ) -> bool:
        """Tell whether all of the chunks are right."""
        right = True
        with closing(compare(snapshot, image, indexes)) as compared:
            for length, wrong in compared:
                if wrong is not None:
                    right = False
                    mismatch(wrong)
                progress(length)
        return right

    def _turn(self) -> int:
        try:
            return int(self._state.read_bytes())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("%s does not tell which chunks were verified last, so it begins anew: %s", self._state, error)
            return 0


def changed_chunks(snapshot: Snapshot) -> set[int] | None:
    """Return the chunks that may have changed, the last one included if it is a short one; None if nobody knows."""
    changes = snapshot.changes()
    if changes is None:
        return None
    found = {index for span in spans(changes, snapshot.size) for index in range(span.start, span.stop)}
    return found | ({snapshot.size // CHUNK_SIZE} if snapshot.size % CHUNK_SIZE else set())


def rotation(turn: int, total: int, changed: set[int]) -> list[int]:
    """Choose chunks that did not change: at least one in a hundred of them, and each once in a hundred turns.

    It is a chunk's turn when both numbers leave the same remainder; that does not depend on how many chunks there are.
    Where too few have that remainder, some of the next ones take part.
    """
    wanted = math.ceil((total - len(changed)) / TURNS)
    chosen: list[int] = []
    for later in range(TURNS):
        due = [index for index in range((turn + later) % TURNS, total, TURNS) if index not in changed]
        chosen += due[: wanted - len(chosen)] if later else due
        if len(chosen) >= wanted:
            break
    return chosen


@hookimpl
def backy_verifier(config: Config, job: Job) -> Verifier:
    """Make the verifier; it has no options."""
    typed(config, BareConfig, "config.verifier")
    return ChangedVerifier(job.directory / STATE)
