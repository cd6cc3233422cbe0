"""Make a revision of an image that was taken elsewhere, in the same way as a backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backy.api import Import, Snapshot, SourceError
from backy.backup.backup import Backup
from backy.backup.transfer import Unhinted
from backy.repository.repository import Repository
from backy.repository.revision import Revision, Trust
from backy.retention.tags import check_tags
from backy.system.progress import Steps, quiet


def import_image(directory: Path, image: Import, tags: tuple[str, ...], steps: Steps = quiet) -> Revision:
    """Make a new revision in the repository in `directory`; return its record.

    Raises:
        SourceError: no revision is made from the snapshot that `image` is a difference from.
        BackyError, OSError: the backup failed; the new revision is removed, the older ones are unchanged.
    """
    repository = Repository.open(directory)
    check_tags(repository.config, tags)
    source = _ImportSource(repository, image)
    return Backup(repository, tags, steps=steps, source=source, snapshot=image.name).run()


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
                # its damage, if there is any, would go into the new revision, which nobody distrusts
                if revision.trust is Trust.DISTRUSTED:
                    raise SourceError(
                        f"revision {revision.id}, which is of the snapshot '{name}', is distrusted; "
                        "'backy verify' looks at it"
                    )
                return revision
        raise SourceError(
            f"the image to import is what differs from the snapshot '{name}', of which there is no revision: "
            "import what leads to that snapshot first, or a whole image"
        )
