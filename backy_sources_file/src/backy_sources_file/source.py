"""The source: what is frozen, what is kept for the next backup, and what differs from the last one."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal

from backy import reflink
from backy.api import Extent, Snapshot, SourceError
from backy_sources_file import fiemap
from backy_sources_file.clones import Clones, ForeignCloneError
from backy_sources_file.image import OpenFile, opened

log = logging.getLogger(__name__)
Freeze = Literal["off", "during-backup", "keep"]
FREEZES: Final[tuple[Freeze, ...]] = ("off", "during-backup", "keep")


class FileSource:
    """A file or a block device; a file is frozen by a clone of it where its file system can make one."""

    def __init__(self, path: Path, job: str, freeze: Freeze) -> None:
        self._path = path
        self._freeze = freeze
        self._clones = Clones(path, job)

    @property
    def verifier(self) -> str:
        """What changed is known only where clones are kept."""
        return "changed" if self._freeze == "keep" else "full"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the image for the length of a backup, or for longer, as far as that can be done."""
        with opened(self._path) as image, ExitStack() as cleaning:
            if not image.is_regular:
                yield image
                return
            kept = parent if self._freeze == "keep" else None
            self._tidy([kept] if kept else [])
            clone = self._frozen(image, cleaning) if self._freeze != "off" else None
            if clone is None:
                yield image
                return
            yield OpenFile(self._path, clone, self._changes(kept, clone) if kept else None)
            if self._freeze == "keep":
                self._keep(clone, revision_id)

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove the clones of other revisions."""
        try:
            self._clones.remove_others(revision_ids)
        except OSError as error:
            raise SourceError(f"source {self._path}: clones of it can not be removed: {error}") from error

    def _tidy(self, revisions: Collection[str]) -> None:
        """Remove what was kept before, and what a crash left; that it can not be done is no reason for no backup."""
        try:
            self.retain(revisions)
        except SourceError as error:
            log.warning("%s", error)

    def _frozen(self, image: OpenFile, cleaning: ExitStack) -> int | None:
        """Clone the image until `cleaning` ends; None where that can not be done."""
        try:
            return cleaning.enter_context(self._clones.frozen(image.descriptor))
        except OSError as error:
            unable = reflink.is_unsupported(error)
            cause = "its file system can not share blocks between files" if unable else error.strerror
            level = logging.WARNING if self._freeze == "keep" else logging.INFO
            log.log(level, "source %s is read as it lies there, for it can not be frozen: %s", self._path, cause)
            return None

    def _changes(self, parent: str, clone: int) -> list[Extent] | None:
        """Compare with the clone that was kept for the revision `parent`; None if that can not be done."""
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
        """Keep the clone of a complete revision in place of that of the one before."""
        try:
            self._clones.keep(clone, revision_id)
        except OSError as error:
            log.warning("source %s: no clone is kept, so the next backup reads all of it: %s", self._path, error)
