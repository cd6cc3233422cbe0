"""One restore: writing a revision to where it is wanted, a target with random access or a stream."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backy.api import CHUNK_SIZE, Progress, RestoreTarget, identify
from backy.durable import write_all
from backy.errors import ConfigError
from backy.image.pages import pages_with_data, runs
from backy.image.stored import StoredImage
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.restore.salvage import salvaged
from backy.restore.target import ReadableTarget, open_again, open_target
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet

STANDARD_OUTPUT = "-"
"""The target that stands for a descriptor which is open already."""


@dataclass
class Restore:
    """A restore of one revision; `run` does it."""

    repository: Repository
    specification: str
    target: str
    """Path of a file or a block device, TYPE:ARGUMENT, or `-` for `descriptor`."""
    resume: bool = False
    """Whether the target, a file or a block device, is read, and only what is not right yet is written."""
    salvage: Path | None = None
    """Where to write what could be read and what could not; None ends the restore at the first damaged chunk."""
    force: bool = False
    """Whether to replace what TYPE:ARGUMENT names if it exists."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What TYPE takes beside ARGUMENT."""
    descriptor: int | None = None
    """What the caller opened for the target `-`; None stands for standard output."""
    events: Events | None = None
    """Who is told of the end; None stands for the installed plugins."""
    steps: Steps = quiet

    def run(self) -> Revision:
        """Write the revision to the target, checking every chunk, and return its record; a purge waits meanwhile.

        Raises:
            RevisionNotFoundError: there is no revision that SPEC stands for.
            ConfigError, PluginError: the target, an option or the path in `salvage` can not be used.
            TargetError: the target can not be had or resumed, or is incomplete.
            DamageError: the chunk map is damaged, or a chunk in a stream; or, once all else is restored and `salvage`
                written, some chunks became zeroes.
            OSError: nobody reads the stream any more, or `salvage` can not be written.
        """
        repository = self.repository
        revision = repository.records.select(self.specification)
        with (
            repository.image(revision) as stored,
            salvaged(stored, self.salvage, self.target, repository) as image,
        ):
            self._write(image)
        # plugins are loaded only now: one that hangs or is broken must not keep anybody from getting an image back
        events = self.events or Events.installed()
        events.restore_finished(repository.job, revision.id, self.target)
        return revision

    def _write(self, image: StoredImage) -> None:
        """Open the target in the way that was asked for and fill it."""
        if self.resume:
            with open_again(self.target, image.size, self.repository) as again:
                resume(image, again, self.steps("restore", image.size))
        elif self.target == STANDARD_OUTPUT:
            if self.options:
                raise ConfigError("options are for targets like TYPE:ARGUMENT; '-' is standard output")
            # not simply 1: where standard output is closed, that may be any file opened since, such as a lock
            descriptor = sys.stdout.fileno() if self.descriptor is None else self.descriptor
            stream(image, descriptor, self.steps("restore", image.size))
        else:
            with open_target(self.target, image.size, self.repository, self.options, force=self.force) as opened:
                restore(image, opened, self.steps("restore", image.size))


def restore(image: StoredImage, target: RestoreTarget, progress: Progress) -> None:
    """Write `image` to `target`; holes stay holes, and pages of zeroes are not written.

    Raises:
        ChunkDamageError: a chunk can not be read; what is in the target is incomplete.
    """
    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)

    def copy(index: int) -> int:
        return _write(target, index * CHUNK_SIZE, image.chunk(index))

    for length in in_parallel(copy, image.chunks.data()):
        progress(length)


def resume(image: StoredImage, target: ReadableTarget, progress: Progress) -> int:
    """Make `target` what `image` is, leaving alone what is so already; return how many bytes of data that are.

    Raises as `restore` does.
    """
    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)

    def copy(index: int) -> tuple[int, int]:
        offset, length = index * CHUNK_SIZE, image.chunks.length(index)
        if identify(target.pread(offset, length)) == image.chunks[index]:
            return length, length
        return _write(target, offset, image.chunk(index)), 0

    kept = 0
    for length, right in in_parallel(copy, image.chunks.data()):
        kept += right
        progress(length)
    return kept


def _write(target: RestoreTarget, start: int, data: bytes) -> int:
    """Write a chunk, or zero what is zero in it; return its length."""
    end = 0
    for offset, length in runs(pages_with_data(data), len(data)):
        if offset > end:
            target.zero(start + end, offset - end)
        target.pwrite(data[offset : offset + length], start + offset)
        end = offset + length
    if end < len(data):
        target.zero(start + end, len(data) - end)
    return len(data)


def stream(image: StoredImage, descriptor: int, progress: Progress) -> None:
    """Write `image` to a pipe, from the first byte to the last.

    Raises:
        ChunkDamageError: a chunk can not be read; the stream ends before it.
        OSError: nobody reads the pipe any more.
    """
    for data in in_parallel(image.chunk, range(len(image.chunks))):
        write_all(descriptor, data)
        progress(len(data))
