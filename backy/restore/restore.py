"""Restores one revision, to a target with random access or to a stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backy.api import CHUNK_SIZE, Progress, RestoreTarget, identify
from backy.durable import write_all
from backy.errors import ConfigError, TargetError
from backy.image.stored import StoredImage
from backy.pages import pages_with_data, runs
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.restore.salvage import salvaged
from backy.restore.target import ReadableTarget, open_target
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet

STANDARD_OUTPUT = "-"
"""The name of a target that is an open descriptor."""


@dataclass
class Restore:
    """A restore of one revision; `run` does it."""

    repository: Repository
    specification: str
    """SPEC of the revision."""
    target: str
    """Path of a file or a block device, TYPE:ARGUMENT, or `-` for `descriptor`."""
    resume: bool = False
    """Whether to read the target, a file or a block device, and write only what is not right yet."""
    salvage: Path | None = None
    """Path of the list of what could be read; None ends the restore at the first damaged chunk."""
    force: bool = False
    """Whether to replace a file that exists, of root's also one of another user, or what TYPE:ARGUMENT names."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Options of TYPE, by name."""
    descriptor: int | None = None
    """The open descriptor that the target `-` stands for."""
    events: Events | None = None
    """The plugins to notify of the end; None stands for the installed ones."""
    steps: Steps = quiet

    def run(self) -> Revision:
        """Write the revision to the target and return its record. Every chunk is checked; a purge waits meanwhile.

        Raises:
            RevisionNotFoundError: there is no revision that SPEC stands for.
            ConfigError, PluginError: the target, an option or the path in `salvage` can not be used.
            TargetError: the target exists, is in use, can not be opened or resumed, or is incomplete.
            DamageError: the chunk map is damaged, or a chunk in a stream; or, after all else is restored and `salvage`
                is written, some chunks became zeroes.
            OSError: the stream has no reader any more, or `salvage` can not be written; PermissionError if that or the
                target is a symbolic link of somebody else.
        """
        repository = self.repository
        told: dict[str, object] = {"job": repository.job, "revision": None, "target": self.target}
        try:
            revision = repository.records.select_image(self.specification)
            told["revision"] = revision.info
            with (
                repository.image(revision) as stored,
                salvaged(stored, self.salvage, self.target, repository, force=self.force) as image,
            ):
                self._write(image)
        except Exception as error:
            self._tell("backy_restore_failed", **told, error=error_line(error))
            raise
        self._tell("backy_restore_finished", **told)
        return revision

    def _tell(self, event: str, **arguments: object) -> None:
        # Plugins are loaded only now: one that hangs or is broken must not keep anybody from getting an image back.
        with self.events or Events.installed(self.repository.config.hooks) as events:
            events.tell(event, **arguments)

    def _write(self, image: StoredImage) -> None:
        """Open the target and write `image` to it."""
        if self.target == STANDARD_OUTPUT and not self.resume:
            if self.options:
                raise ConfigError("options are for targets like TYPE:ARGUMENT; '-' is standard output")
            # Never a descriptor by its usual number: that may lead to standard error, or to a lock.
            if self.descriptor is None:
                raise TargetError(f"no descriptor is open for '{STANDARD_OUTPUT}'")
            stream(image, self.descriptor, self.steps("restore", image.size))
        else:
            where = self.target, image.size, self.repository, self.options
            with open_target(*where, force=self.force, kept=self.resume) as opened:
                restore(image, opened, self.steps("restore", image.size), resume=self.resume)


def restore(image: StoredImage, target: RestoreTarget, progress: Progress, *, resume: bool = False) -> None:
    """Write `image` to `target`; holes and pages of zeroes become zeroes of the target.

    Args:
        image: The image.
        target: An open target of its size.
        progress: Called with the number of bytes that are done.
        resume: Whether to read the target, and to write only the chunks that it does not have yet.

    Raises:
        ChunkDamageError: a chunk can not be read; the target is incomplete.
    """
    for extent in image.extents():
        if not extent.data:
            target.zero(extent.offset, extent.length)
            progress(extent.length)

    kept = target if resume and isinstance(target, ReadableTarget) else None

    def copy(index: int) -> int:
        start, length = index * CHUNK_SIZE, image.chunks.length(index)
        # First the look: a target that is right needs no chunk, so that damage of it does not matter.
        if kept is None or identify(kept.pread(start, length)) != image.chunks[index]:
            _write(target, start, image.chunk(index))
        return length

    for length in in_parallel(copy, image.chunks.data(), image.threads):
        progress(length)


def _write(target: RestoreTarget, start: int, data: bytes) -> None:
    """Write the chunk `data` to offset `start`, its pages of zeroes as zeroes of the target."""
    end = 0
    for offset, length in runs(pages_with_data(data), len(data)):
        if offset > end:
            target.zero(start + end, offset - end)
        target.pwrite(data[offset : offset + length], start + offset)
        end = offset + length
    if end < len(data):
        target.zero(start + end, len(data) - end)


def stream(image: StoredImage, descriptor: int, progress: Progress) -> None:
    """Write `image` to `descriptor`, from the first byte to the last.

    Raises:
        ChunkDamageError: a chunk can not be read; the stream ends before it.
        OSError: the pipe has no reader any more.
    """
    # All chunks, not only those with data: a pipe has no holes.
    for data in in_parallel(image.chunk, range(len(image.chunks)), image.threads):
        write_all(descriptor, data)
        progress(len(data))
