"""The verifier `sample`: compares chunks in turns, and randomly chosen ones, for a limited time."""

import logging
import math
import random
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import Annotated

import msgspec

from backy.api import CHUNK_SIZE, Config, Coverage, Image, MismatchHandler, Progress, Report, Snapshot, Verifier
from backy.comparing import compare
from backy.config import Duration, typed
from backy.hookspecs import hookimpl

log = logging.getLogger(__name__)


class SampleConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `verifier` of a job's configuration."""

    type: str
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


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier with the options of its section."""
    return SampleVerifier(typed(config, SampleConfig, "config.verifier"))
