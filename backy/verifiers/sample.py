"""The verifier `sample`: compares randomly chosen chunks of source and stored image, for a limited time."""

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
from backy.comparing import compare
from backy.config import Duration, typed
from backy.hookspecs import hookimpl

log = logging.getLogger(__name__)


class SampleConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `verifier` of a job's configuration."""

    type: str
    percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.0
    """Percentage of the chunks that are compared; at least one chunk is."""
    longest: Duration = Duration(minutes=5)
    """Time after which the verifier stops even if chunks are left; a number is seconds."""


class SampleVerifier:
    """Compares a random sample of the chunks, holes included. A short last chunk is always among them."""

    def __init__(
        self, percent: float, longest: float, seed: int | None = None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._percent = percent
        self._longest = longest
        # A number that the log has, so that a sample that found something can be compared once more.
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
            for length, found in compared:
                checked += 1
                if found is not None:
                    mismatch(found)
                progress(length)
                # Looked at last, so that at least one chunk is compared.
                if self._monotonic() >= deadline:
                    break
        return Report("sample", checked, total, out_of_time=checked < len(chosen))

    def choose(self, total: int, *, odd: bool) -> list[int]:
        """Return the indexes of the chunks to compare, ascending; `odd` adds the last one."""
        size = min(total, max(1, math.ceil(total * self._percent / 100)))
        chosen = set(random.Random(self._seed).sample(range(total), size))  # noqa: S311  # a sample, no secret
        return sorted(chosen | ({total - 1} if odd else set()))


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier with the options of its section."""
    section = typed(config, SampleConfig, "config.verifier")
    return SampleVerifier(section.percent, section.longest.total_seconds())
