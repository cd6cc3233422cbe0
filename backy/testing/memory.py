"""An image in memory as a source, for tests of what deals with sources: no disk, no plugin, every byte known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backy.api import Config, Extent, Snapshot, Source, SourceError
from backy.repository.config import JobConfig, PluginSection, ShortSection
from backy.repository.repository import Repository
from backy.repository.revision import FORMAT


@dataclass
class MemoryImage:
    """A snapshot of an image in memory. It tells all that `hint` says of changes, and nothing if there is none."""

    content: bytes
    hint: tuple[Extent, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes from the first to the last."""
        return len(self.content)

    def extents(self) -> Iterator[Extent]:
        """Call all of it data."""
        if self.content:
            yield Extent(0, len(self.content), data=True)

    def changes(self) -> tuple[Extent, ...] | None:
        """Return the hint."""
        return self.hint

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raises SourceError beyond the end."""
        if offset < 0 or length < 0 or offset + length > len(self.content):
            raise SourceError(f"bytes {offset} to {offset + length} are outside of the image")
        return self.content[offset : offset + length]


@dataclass
class MemorySource:
    """A source whose content a test sets; every snapshot is of the content at its beginning."""

    content: bytes = b""
    verifier: str = "full"
    wrap: Callable[[MemoryImage], Snapshot] = field(default=lambda image: image)
    """Makes of each snapshot what the test wants: one that fails, for instance."""

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the content."""
        yield self.wrap(MemoryImage(self.content))


class MemoryRepository(Repository):
    """A real repository in a directory, whose source is an image in memory."""

    def __init__(self, directory: Path, config: JobConfig) -> None:
        super().__init__(directory, config)
        self.memory = MemorySource()
        """The source: set its content before a backup."""

    @classmethod
    def make(cls, directory: Path, storage: Config | None = None) -> MemoryRepository:
        """Initialize one with the section `storage`, or with the default one."""
        config = JobConfig(format=FORMAT, source=PluginSection.named("memory"), verifier=ShortSection.named("full"))
        if storage is not None:
            config.storage = ShortSection(storage)
        return cls.initialize(directory, config)

    def source(self) -> Source:
        """Return the image in memory."""
        return self.memory
