"""Make a revision of an image that was taken elsewhere, in the same way as a backup."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from backy.api import ID_PATTERN, Config, ConfigError, Import, RevisionInfo, Snapshot, SourceError
from backy.backup.backup import Backup
from backy.backup.snapshots import Unhinted
from backy.config import typed
from backy.integrity.damage import distrust
from backy.repository.config import JobConfig
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Wrong, utc_now
from backy.repository.sealed import FORMAT
from backy.retention.tags import check_tags
from backy.system.progress import Steps, quiet


class Original(NamedTuple):
    """What a revision was where it comes from, and shall be here too."""

    revision_id: str | None = None
    """Its id; None for a random one."""
    timestamp: datetime | None = None
    """When the image was taken, with a time zone; None for now."""
    wrong: Collection[int] = ()
    """Indexes of the chunks whose content is lost. It may grow while the image is read."""
    verified: bool = False
    """Whether all of it was read and found sound after it was distrusted."""

    def state(self) -> dict[str, Any]:
        """Return what a new revision's state says of it."""
        if self.wrong:
            return {"wrong": Wrong(tuple(sorted(self.wrong)), utc_now())}
        return {"verified": utc_now()} if self.verified else {}


NEW = Original()
"""A random id, and the present time."""


def import_image(
    directory: Path, image: Import, tags: tuple[str, ...], steps: Steps = quiet, original: Original = NEW
) -> RevisionInfo:
    """Make a new revision in the repository in `directory`, and return its facts.

    Args:
        directory: The repository.
        image: The image that was taken elsewhere.
        tags: Tags of the new revision. Those of the job's schedule are allowed, and any that begin with `manual:`; with
            an `original`, all tags are.
        steps: Called when a step begins; see `backy.cli.progress.steps`.
        original: What the revision was where it comes from.

    Raises:
        ConfigError: a revision can not have the id in `original`, or has it already; or its time has no time zone.
        SourceError: no revision is made from the snapshot that `image` is a difference from.
        BackyError, OSError: the backup failed; the new revision is removed, the older ones are unchanged.
    """
    repository = Repository.open(directory)
    # a revision that was made elsewhere has the tags of another time's schedule
    known = repository.config if original is NEW else msgspec.structs.replace(repository.config, schedule=None)
    check_tags(known, tags)
    _check(repository, original.revision_id, original.timestamp)
    backup = Backup(repository, tags, steps=steps, source=_ImportSource(repository, image), snapshot=image.name)
    backup.revision_id, backup.state = original.revision_id, original.state
    # as all records have it
    backup.timestamp = original.timestamp and original.timestamp.astimezone(UTC)
    return backup.run().info


def make_repository(directory: Path, config: Config) -> None:
    """Make a repository to import into, with the keys of its `config`; `format` and `id` are added.

    Raises:
        RepositoryError: there is one already.
        ConfigError, PluginError: a key is wrong, or a plugin refuses its section.
        StorageError: the storage can not work in this directory.
    """
    Repository.initialize(directory, typed({"format": FORMAT, **config}, JobConfig, "config"))


def distrust_revision(directory: Path, revision_id: str) -> None:
    """Distrust a revision that was distrusted where it comes from. From then on nothing is built upon it."""
    distrust(Repository.open(directory), revision_id)


def _check(repository: Repository, revision_id: str | None, timestamp: datetime | None) -> None:
    """Refuse an id that is taken or no id at all, and a time that may mean several."""
    if revision_id is not None and not ID_PATTERN.fullmatch(revision_id):
        raise ConfigError(f"{revision_id!r} can not be the id of a revision: 8 to 64 letters, digits and '-'")
    # what an import that was killed has left of it, the next one cleans up
    if revision_id is not None and repository.records.record_path(revision_id).exists():
        raise ConfigError(f"{repository.directory} has a revision {revision_id} already")
    if timestamp is not None and timestamp.tzinfo is None:
        raise ConfigError(f"the time {timestamp} has no time zone")


class _ImportSource:
    """An imported image as the source of one backup."""

    verifier = "changed"

    def __init__(self, repository: Repository, image: Import) -> None:
        self._repository = repository
        self._image = image

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Yield the image, made from the revision that it is a difference from. That one need not be the newest."""
        # a whole image needs no revision to be there
        if self._image.base is None:
            yield self._image.snapshot(None)
            return
        base = self._base(self._image.base)
        with self._repository.image(base) as image:
            snapshot = self._image.snapshot(image)
            # the differences hold for the base only, and the parent may be another revision
            yield snapshot if base.id == parent else Unhinted(snapshot)

    def _base(self, name: str) -> Revision:
        for revision in reversed(self._repository.records.history()):
            if name in {f"backy-{revision.id}", revision.snapshot}:
                # what is not right in it would go into the new revision, which nobody doubts
                if revision.doubtful:
                    advice = "import a whole image" if revision.state.wrong else "'backy verify' looks at it"
                    raise SourceError(f"{revision.doubt}; it is of the snapshot '{name}': {advice}")
                return revision
        text = f"the image to import is what differs from the snapshot '{name}', of which there is no revision"
        raise SourceError(f"{text}: import what leads to that snapshot first, or a whole image")
