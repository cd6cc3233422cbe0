"""The verifiers that come along.

`full` reads all of the source and all of the stored image. `changed` reads what the source says has changed, and all
other chunks in turns. `sample` compares chunks in turns, and randomly chosen ones, for a limited time. `none` checks
nothing, and records that in every revision.
"""

import logging
import math
import random
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import Annotated, Any

import msgspec

from backy.api import CHUNK_SIZE, Config, Coverage, Image, MismatchHandler, Progress, Report, Snapshot, Verifier
from backy.comparing import chunks_with_data, compare, compare_all
from backy.config import BareConfig, Duration, typed
from backy.hookspecs import hookimpl
from backy.image.spans import spans

log = logging.getLogger(__name__)


class Plugin:
    """What an entry point names: its hook makes one of the verifiers."""

    def __init__(self, section: type, make: Callable[[Any], Verifier]) -> None:
        self._section = section
        self._make = make

    @hookimpl
    def backy_verifier(self, config: Config) -> Verifier:
        """Make the verifier with the options of its section."""
        return self._make(typed(config, self._section, "config.verifier"))


class FullVerifier:
    """Compares every chunk in which source or image has data. Holes of both are not read."""

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Compare all chunks, in the order of the image."""
        compare_all(snapshot, image, coverage.left(chunks_with_data(snapshot, image)), mismatch, progress)
        # Holes of both count as compared: they are known to be equal.
        return Report("full", range(len(coverage.compared)))


class ChangedConfig(BareConfig, frozen=True):
    """The section `verifier` of a job's configuration."""

    turns: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Number of backups in which each chunk is compared once."""


class ChangedVerifier:
    """Compares the chunks that changed and those whose turn it is; all if the source can not tell what changed."""

    def __init__(self, turns: int) -> None:
        self._turns = turns

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Compare the chunks that are due, in the order of the image."""
        changed = changed_chunks(snapshot)
        if changed is None:
            compare_all(snapshot, image, coverage.left(chunks_with_data(snapshot, image)), mismatch, progress)
            return Report("changed", range(len(coverage.compared)))
        # A source may tell too little, so the chunks that it does not name are compared too, some at each backup.
        chosen = sorted(changed.union(coverage.due(self._turns)))
        log.info("verifying %d changed chunks and %d others by turns", len(changed), len(chosen) - len(changed))
        compare_all(snapshot, image, chosen, mismatch, progress)
        return Report("changed", chosen)


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


class SampleConfig(BareConfig, frozen=True):
    """The section `verifier` of a job's configuration."""

    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    """Percentage of the chunks that are chosen at random; at least one chunk is."""
    turns: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Number of backups in which each chunk is compared once, if there is time."""
    longest: Duration = Duration(minutes=5)
    """Time after which the verifier stops even if chunks are left; a number is seconds."""


class SampleVerifier:
    """Compares the chunks whose turn it is and a random sample, holes included. A short last chunk is always in it."""

    def __init__(
        self, section: SampleConfig, seed: int | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._section = section
        # A number that the log has, so that a sample that found something can be compared once more.
        self._seed = secrets.randbits(64) if seed is None else seed
        self._monotonic = monotonic

    def verify(
        self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress, coverage: Coverage
    ) -> Report:
        """Compare the chunks that are due, and then the sample, in the order of the image."""
        total = len(coverage.compared)
        # chance alone bounds nothing: of a hundred samples of a hundredth, a chunk escapes all every third time
        due = coverage.due(self._section.turns)
        chosen = list(dict.fromkeys([*due, *self.choose(total, odd=bool(snapshot.size % CHUNK_SIZE))]))
        text = "verifying %d of %d chunks, %d by turns and others by the seed %d"
        log.info(text, len(chosen), total, len(due), self._seed)
        deadline = self._monotonic() + self._section.longest.total_seconds()
        checked = 0
        with closing(compare(snapshot, image, chosen)) as compared:
            for length, found in compared:
                checked += 1
                if found is not None:
                    mismatch(found)
                progress(length)
                # Looked at last, so that at least one chunk is compared.
                if self._monotonic() >= deadline:
                    break
        return Report("sample", chosen[:checked], out_of_time=checked < len(chosen))

    def choose(self, total: int, *, odd: bool) -> list[int]:
        """Return the indexes of the chunks to compare, ascending; `odd` adds the last one."""
        size = min(total, max(1, math.ceil(total * self._section.percent / 100)))
        chosen = set(random.Random(self._seed).sample(range(total), size))  # noqa: S311  # a sample, no secret
        return sorted(chosen | ({total - 1} if odd else set()))


class NoneVerifier:
    """Reads nothing. A backup takes about half the time, and nothing shows that it can be read."""

    def verify(self, *_: object, **__: object) -> Report:
        """Report that no chunk was compared, whatever there is."""
        # nothing of all chunks is what `status` shows as "not verified"
        return Report("none", ())


Comparing = FullVerifier | ChangedVerifier | SampleVerifier
"""Those that find what is stored and not as in the source: at once, or when it is the chunk's turn."""
full = Plugin(BareConfig, lambda _: FullVerifier())
changed = Plugin(ChangedConfig, lambda section: ChangedVerifier(section.turns))
sample = Plugin(SampleConfig, SampleVerifier)
none = Plugin(BareConfig, lambda _: NoneVerifier())
