"""The verifier `sample`: reads randomly chosen chunks of source and stored image, for a bounded time."""

from __future__ import annotations

import logging
import math
import random
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from typing import Annotated

import msgspec

from backy.api import CHUNK_SIZE, Config, Image, MismatchHandler, Progress, Report, Snapshot, Verifier, chunk_count
from backy.config import Duration, typed
from backy.hookspecs import hookimpl
from backy.verifiers.comparison import compare

log = logging.getLogger(__name__)


class SampleConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `verifier` of a job."""

    type: str
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    """How many of a hundred chunks are compared; at least one is."""
    longest: Duration = Duration(minutes=5)
    """When to stop even if not all of them were compared; a number is seconds."""


class SampleVerifier:
    """Compares a random sample of the chunks, holes included, and always the last one if it is a short one."""

    def __init__(
        self,
        percent: float,
        longest: float,
        seed: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._percent = percent
        self._longest = longest
        self._seed = secrets.randbits(64) if seed is None else seed
        self._monotonic = monotonic

    def verify(self, snapshot: Snapshot, image: Image, mismatch: MismatchHandler, progress: Progress) -> Report:
        """Compare the sample, in the order of the image."""
        total = chunk_count(snapshot.size)
        chosen = self.choose(total, odd=bool(snapshot.size % CHUNK_SIZE))
        log.info("verifying %d of %d chunks, chosen by the seed %d", len(chosen), total, self._seed)
        deadline = self._monotonic() + self._longest
        checked = 0
        with closing(compare(snapshot, image, chosen)) as compared:
            for length, wrong in compared:
                checked += 1
                if wrong is not None:
                    mismatch(wrong)
                progress(length)
                if self._monotonic() >= deadline:
                    break
        return Report("sample", checked, total, out_of_time=checked < len(chosen))

    def choose(self, total: int, *, odd: bool) -> list[int]:
        """Return the numbers of the chunks to compare, ascending."""
        size = min(total, max(1, math.ceil(total * self._percent / 100)))
        chosen = set(random.Random(self._seed).sample(range(total), size))  # noqa: S311  # a sample, no secret
        return sorted(chosen | ({total - 1} if odd else set()))


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier from its section."""
    section = typed(config, SampleConfig, "config.verifier")
    return SampleVerifier(section.percent, section.longest.total_seconds())
