"""Whether the writers of a job rest while snapshots of it are taken, and for how long; and what else goes together."""

import logging
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic

from backy.api import Job, Moment
from backy.plugins.discovery import Kind
from backy.plugins.loading import call
from backy.repository.config import PluginSection

log = logging.getLogger(__name__)
Stages = Generator[None, None, None]
"""A backup that stops on the way, as those of other disks have to get as far; an error thrown into it removes all."""


def moment_of(job: Job, section: PluginSection | None) -> AbstractContextManager[Moment] | None:
    """Make what brings the writers of a job to rest, if `config` has a section for it.

    Raises ConfigError or PluginError.
    """
    return call(Kind.MOMENT, section.type, "backy_moment", config=section.options, job=job) if section else None


@dataclass
class Rest:
    """The rest of writers during a backup, or a group of them."""

    frozen: bool = False
    """Whether file systems were frozen when the snapshots were taken."""
    stall: float | None = None
    """Seconds that writers rested; None if nothing brought them to rest."""

    @contextmanager
    def during(self, moment: AbstractContextManager[Moment] | None) -> Iterator[None]:
        """Enter a moment, if there is one; note what it was like."""
        if moment is None:
            yield
            return
        begun = monotonic()
        try:
            with moment as found:
                yield
            # not if it has ended with an error, as when it was too long
            self.frozen = found.frozen
        finally:
            self.stall = round(monotonic() - begun, 3)
            log.info("writers rested for %.3f s", self.stall)
