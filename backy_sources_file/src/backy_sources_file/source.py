"""The source: freezes the image, keeps a clone for the next backup, and compares with the kept one."""

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from backy.api import Extent, Snapshot, SourceError
from backy_sources_file import fiemap, reflink
from backy_sources_file.image import OpenFile, WriteWatch, opened
from backy_sources_file.reflink import Clones, ForeignCloneError

log = logging.getLogger(__name__)
Freeze = Literal["off", "during-backup", "keep"]
FREEZES: Final[tuple[Freeze, ...]] = ("off", "during-backup", "keep")


class FileSource:
    """An image file or a block device. A clone freezes a file where its file system can make clones."""

    def __init__(self, path: Path, job: str, freeze: Freeze) -> None:
        self._path = path
        self._freeze = freeze
        self._clones = Clones(path, job)

    @property
    def verifier(self) -> str:
        """The verifier that suits the setting `freeze`."""
        # Changes are known only with kept clones, and without them `changed` would have nothing to go by.
        return "changed" if self._freeze == "keep" else "full"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image for a backup if possible. Keep the clone after a complete backup with `freeze: keep`."""
        with opened(self._path) as image, ExitStack() as stack:
            # A block device can not be cloned.
            if not image.is_regular:
                yield self._watched(image)
                return
            kept = parent if self._freeze == "keep" else None
            self._clean_up([kept] if kept else [])
            clone = self._frozen(image, stack) if self._freeze != "off" else None
            if clone is None:
                yield self._watched(image)
                return
            yield OpenFile(self._path, clone, self._changes(kept, clone) if kept else None)
            # A failed backup raises at the yield and does not get here: the clone of the parent stays.
            if self._freeze == "keep":
                self._keep(clone, revision_id)

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove the clones of all other revisions; raise SourceError if they can not be removed."""
        try:
            self._clones.remove_others(revision_ids)
        except OSError as error:
            raise SourceError(f"source {self._path}: clones of it can not be removed: {error}") from error

    def _watched(self, image: OpenFile) -> OpenFile:
        """Return an image that is read as it lies there."""
        # in this order: an image that grows meanwhile counts as written to
        return OpenFile(self._path, image.descriptor, watch=WriteWatch(image.descriptor))

    def _clean_up(self, revision_ids: Collection[str]) -> None:
        """Remove all other clones, also those that a crash left."""
        try:
            self.retain(revision_ids)
        except SourceError as error:
            # A clone too many costs space. No backup would cost more.
            log.warning("%s", error)

    def _frozen(self, image: OpenFile, stack: ExitStack) -> int | None:
        """Clone the image until `stack` ends and return the descriptor; None if it can not be cloned."""
        try:
            return stack.enter_context(self._clones.frozen(image.descriptor))
        except OSError as error:
            unable = reflink.is_unsupported(error)
            cause = "its file system can not share blocks between files" if unable else error.strerror
            level = logging.WARNING if self._freeze == "keep" else logging.INFO
            log.log(level, "source %s is read as it lies there, for it can not be frozen: %s", self._path, cause)
            return None

    def _changes(self, parent: str, clone: int) -> list[Extent] | None:
        """Compare with the clone that was kept for the revision `parent`; return None if that is not possible."""
        try:
            with self._clones.kept(parent) as old:
                return fiemap.changes(old, clone)
        except FileNotFoundError:
            cause = f"the clone of revision {parent} is missing"
        except ForeignCloneError:
            cause = f"the clone of revision {parent} is not what it was"
        except fiemap.MovedError:
            cause = "its extents are being moved"
        except (OSError, ValueError) as error:
            cause = f"its extents can not be told: {error}"
        log.warning("source %s is read from end to end: %s", self._path, cause)
        return None

    def _keep(self, clone: int, revision_id: str) -> None:
        """Keep the clone of a complete revision and remove the clone of its parent."""
        try:
            self._clones.keep(clone, revision_id)
        except OSError as error:
            log.warning("source %s: no clone is kept, so the next backup reads all of it: %s", self._path, error)
