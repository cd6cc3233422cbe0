"""How much of the space of a repository is taken only as the base of differences."""

from collections.abc import Sequence

from backy.api import Held
from backy.errors import StorageError
from backy.repository.live import LiveChunks
from backy.repository.repository import Repository
from backy.repository.revision import Revision


def held_by(repository: Repository, revisions: Sequence[Revision]) -> Held:
    """Count what all storages keep only as bases of deltas, while no revision refers to it."""
    try:
        return _held_by(repository, revisions)
    except StorageError:
        # A conversion may have moved them since they were read, and have given up the storage that they were in.
        now = repository.records.survey(trash=True)[0]
        if [revision.state for revision in now] == [revision.state for revision in revisions]:
            raise
        return held_by(repository, now)


def _held_by(repository: Repository, revisions: Sequence[Revision]) -> Held:
    counts = []
    # Only those that have any: one that was chosen by hand has no store before its first backup.
    for identity in {repository.store_of(revision) for revision in revisions}:
        storage = repository.storage(identity)
        own = [revision for revision in revisions if repository.store_of(revision) == identity]
        counts.append(storage.held(LiveChunks(repository.records, own)))
    return Held(sum(count.files for count in counts), sum(count.bytes for count in counts))
