"""The verifier `changed`: reads what the source says has changed, and all other chunks in turns."""

import logging
from typing import Annotated

import msgspec

from backy.api import CHUNK_SIZE, Config, Coverage, Image, MismatchHandler, Progress, Report, Snapshot, Verifier
from backy.comparing import chunks_with_data, compare_all
from backy.config import typed
from backy.hookspecs import hookimpl
from backy.image.spans import spans

log = logging.getLogger(__name__)


class ChangedConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `verifier` of a job's configuration."""

    type: str
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


@hookimpl
def backy_verifier(config: Config) -> Verifier:
    """Make the verifier with the options of its section."""
    return ChangedVerifier(typed(config, ChangedConfig, "config.verifier").turns)
