"""What a plugin of moments makes: the writers of a job at rest, while snapshots are taken."""

from __future__ import annotations

from typing import Protocol


class Moment(Protocol):
    """Writers at rest."""

    @property
    def frozen(self) -> bool:
        """Whether all file systems are frozen, as a guest does it itself. An image of one instant is `guest` then."""
