"""Restores one revision, to a target with random access or to a stream; salvages what is left of a damaged one."""

import os
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from backy.api import CHUNK_SIZE, Progress, RestoreTarget, identify
from backy.durable import naming, pwrite_all, write_all
from backy.errors import BackyError, ConfigError, DamageError, TargetError
from backy.image.stored import StoredImage
from backy.pages import pages_with_data, runs
from backy.plugins.broken import error_line
from backy.plugins.events import Events
from backy.repository.repository import Repository
from backy.repository.revision import Revision
from backy.repository.storages import threads_for
from backy.restore.target import ReadableTarget, open_file, open_target
from backy.system.parallel import in_parallel
from backy.system.progress import Steps, quiet
from backy.text.phrases import counted

_NOT_TRIED, _READ, _BAD = "?", "+", "-"
"""Status of a range, from section "Mapfile structure" of GNU ddrescue's manual."""
STANDARD_OUTPUT = "-"
"""The name of a target that is an open descriptor."""


class SalvagedImage(StoredImage):
    """A stored image whose damaged chunks read as zeroes and are remembered."""

    def __init__(self, image: StoredImage) -> None:
        super().__init__(image.chunks, image.reader)
        self.damaged: dict[int, str] = {}
        """What is wrong with a chunk, by index."""

    def chunk(self, index: int) -> bytes:
        """Return chunk `index`, or zeroes of its length if it can not be had."""
        try:
            return super().chunk(index)
        # whatever it is: the other chunks are worth having
        except (BackyError, OSError) as error:
            # The text only: the error holds the evidence in memory.
            self.damaged[index] = str(error)
            return bytes(self.chunks.length(index))


@contextmanager
def salvaged(
    image: StoredImage, path: Path | None, target: str, repository: Repository, *, force: bool = False
) -> Iterator[StoredImage]:
    """Yield an image whose damaged chunks read as zeroes; write to `path` which ones these were.

    Args:
        image: The stored image.
        path: Path of the list; None yields `image` itself.
        target: What the image is restored to, which `path` must not be.
        repository: The repository, in which `path` must not lie.
        force: Whether root may replace a file of another user by the list.

    Raises:
        ConfigError: `path` lies inside of the repository, is no file, or is the target.
        TargetError: the file at `path` belongs to somebody else or is in use.
        PermissionError: `path` is a symbolic link of somebody else.
        DamageError: at the end, if a chunk could not be read.
    """
    if path is None:
        yield image
        return
    _check(path, target, repository)
    # An older list is replaced without force: a restore that is resumed goes on with it.
    with open_file(path, existing=True, force=force) as descriptor:
        # Written before anything is read: an interrupted restore must not leave a list that says more than it knows.
        _replace(descriptor, mapfile(image.size, (), _NOT_TRIED), path)
        found = SalvagedImage(image)
        yield found
        _replace(descriptor, mapfile(image.size, found.damaged, _READ), path)
    if found.damaged:
        lost = f"{len(found.damaged)} of {counted(len(image.chunks), 'chunk')} could not be read"
        first = found.damaged[min(found.damaged)]
        raise DamageError(f"{lost}, zeroes are in their place, see {path}; the first is {first}")


def _replace(descriptor: int, content: str, path: Path) -> None:
    """Replace all that an open file holds."""
    with naming(path):
        os.ftruncate(descriptor, 0)
        pwrite_all(descriptor, content.encode(), 0)


def _check(path: Path, target: str, repository: Repository) -> None:
    """Raise ConfigError if the list would replace something else."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file: the list of what could be read has to be one of its own")
    # The target may not exist yet, so that there is no file to compare.
    if path.resolve() == Path(target).resolve() or (path.exists() and Path(target).exists() and path.samefile(target)):
        raise ConfigError(f"{path} is the target: the list of what could be read has to be a file of its own")
    if path.resolve().is_relative_to(repository.directory.resolve()):
        raise ConfigError(f"{path} lies inside of the repository: write the list to another place")


def mapfile(size: int, damaged: Container[int], other: str) -> str:
    """Return ranges of bytes in the format of GNU ddrescue: damaged chunks as bad, all others with status `other`."""
    lines = ["# Mapfile. Created by backy", "# current_pos  current_status  current_pass"]
    lines += [f"0x{0:08X}     {other}               1", "#      pos        size  status"]
    for status, group in groupby(range(-(-size // CHUNK_SIZE)), lambda index: _BAD if index in damaged else other):
        chunks = list(group)
        start, end = chunks[0] * CHUNK_SIZE, min((chunks[-1] + 1) * CHUNK_SIZE, size)
        lines.append(f"0x{start:08X}  0x{end - start:08X}  {status}")
    return "\n".join(lines) + "\n"


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
            with repository.image(revision) as stored:
                stored.limits = repository.limits("restore")
                with salvaged(stored, self.salvage, self.target, repository, force=self.force) as image:
                    self._write(revision, image)
        except Exception as error:
            self._tell("backy_restore_failed", **told, error=error_line(error))
            raise
        self._tell("backy_restore_finished", **told)
        return revision

    def _tell(self, event: str, **arguments: object) -> None:
        # Plugins are loaded only now: one that hangs or is broken must not keep anybody from getting an image back.
        with self.events or Events.installed(self.repository.config.hooks) as events:
            events.tell(event, **arguments)

    def _write(self, _revision: Revision, image: StoredImage) -> None:
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

    threads = max(filter(None, (image.threads, threads_for(target))), default=None)
    for length in in_parallel(copy, image.chunks.data(), threads):
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
