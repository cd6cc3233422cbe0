"""The verifier `changed`: reads what the source says has changed, and a part of all other chunks in turns.

The file `.changed` in the repository has the number of the next turn.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Final

from backy.api import CHUNK_SIZE, Config, Image, Job, MismatchHandler, Progress, Report, Snapshot, Verifier, chunk_count
from backy.comparing import chunks_with_data, compare_all
from backy.config import BareConfig, typed
from backy.durable import write_file
from backy.hookspecs import hookimpl
from backy.image.spans import spans

log = logging.getLogger(__name__)
STATE: Final = ".changed"
TURNS: Final = 100
"""Number of backups after which every chunk was compared."""


class ChangedVerifier:
    """Compares the chunks that changed and a hundredth of the others; all if the source can not tell what changed."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare the chunks that are due, in the order of the image."""
        total = chunk_count(snapshot.size)
        changed = changed_chunks(snapshot)
        if changed is None:
            compare_all(snapshot, image, chunks_with_data(snapshot, image), mismatch, progress)
            return Report("changed", checked=total, total=total)
        turn = self._turn()
        # A source may tell too little, so the chunks that it does not name are compared too, some at each backup.
        others = rotation(turn, total, changed)
        log.info("verifying %d changed chunks and %d others, turn %d", len(changed), len(others), turn)
        # A turn with a mismatch is repeated: its chunks are compared again until they are right.
        if compare_all(snapshot, image, sorted([*changed, *others]), mismatch, progress):
            write_file(self._state, b"%d\n" % (turn + 1))
        return Report("changed", len(changed) + len(others), total)

    def _turn(self) -> int:
        """Return the number of the next turn; 0 if the state is missing or unreadable."""
        try:
            return int(self._state.read_bytes())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            log.warning("%s does not tell which chunks were verified last, so it begins anew: %s", self._state, error)
            return 0


def changed_chunks(snapshot: Snapshot) -> set[int] | None:
    """Return the indexes of the chunks that may have changed; None if the source can not tell.

    A last chunk that is shorter than the others is always among them.
    """
    changes = snapshot.changes()
    if changes is None:
        return None
    found = {index for span in spans(changes, snapshot.size) for index in range(span.start, span.stop)}
    # An image whose end is not that of a chunk is where a source errs most easily.
    return found | ({snapshot.size // CHUNK_SIZE} if snapshot.size % CHUNK_SIZE else set())


def rotation(turn: int, total: int, changed: set[int]) -> list[int]:
    """Choose unchanged chunks: at least one in `TURNS` of them, and each one once in `TURNS` turns.

    A chunk is due if its index and `turn` leave the same remainder when divided by `TURNS`. If too few chunks are due,
    some of the next turns' chunks are added.
    """
    # The remainder of an index does not change when the image grows, so no chunk is left out for long.
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
    """Make the verifier, which has no options."""
    typed(config, BareConfig, "config.verifier")
    return ChangedVerifier(job.directory / STATE)
