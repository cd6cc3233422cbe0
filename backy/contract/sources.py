"""What a source plugin makes: sources, imports and targets of a restore."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from backy.contract.images import Image, Snapshot


class Source(Protocol):
    """A source of images."""

    @property
    def verifier(self) -> str:
        """Name of the verifier to use unless the job names one."""

    def snapshot(self, revision_id: str, parent: str | None) -> AbstractContextManager[Snapshot]:
        """Freeze the source for one backup, which makes revision `revision_id`.

        `parent` is the complete revision that the new one builds upon; None for a full backup. The context ends without
        an exception when the revision is complete, and with an exception when the revision is to be removed.

        Raises:
            SourceError: there is no such source, or it can not be frozen.
            SourceBusyError: another backup uses the source; the command ends as busy.
        """


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source that keeps something for revisions, such as a snapshot to compare the next one with."""

    # A cache: a backup that does not find what was kept reads everything.
    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove what is kept for revisions of this job that are not in `revision_ids`.

        Called with the complete revisions that are left when one was forgotten, and with no revision when the job is
        given up. No backup of the job runs meanwhile: if one was forgotten beside a backup, it is the next removal that
        calls this.

        Raises:
            SourceError: the source can not be reached.
        """


class Import(Protocol):
    """An image that was taken elsewhere: all of it, or its differences from an earlier snapshot."""

    @property
    def base(self) -> str | None:
        """Name of the snapshot that it differs from; None for a whole image.

        This is the `name` of an earlier import, or `backy-<id>` with the id of a revision.
        """

    @property
    def name(self) -> str | None:
        """Name of the snapshot that the image is of. Later imports refer to it. None if it has no name."""

    def snapshot(self, base: Image | None) -> Snapshot:
        """Return the image, made of the image of `self.base` and the differences, which `changes` yields."""


class RestoreTarget(Protocol):
    """A place that an image is restored to. Every byte of the image is either written or zeroed, once."""

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`. Called from several threads.

        Raises:
            TargetError, OSError: `data`, or the data of an earlier call, can not be written.
        """

    def zero(self, offset: int, length: int) -> None:
        """Fill a range with zeroes or make it a hole. Called from several threads. Raises as `pwrite`."""

    def finish(self) -> None:
        """Make everything durable. Called once, after the last write of a successful restore. Raises as `pwrite`."""
