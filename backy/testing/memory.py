"""An image in memory as a source for tests, without a disk and without a plugin; and objects in memory."""

from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from backy.api import Config, Extent, Snapshot, Source, SourceError
from backy.config import typed
from backy.repository.config import JobConfig
from backy.repository.repository import Repository
from backy.repository.sealed import FORMAT


@dataclass
class MemoryImage:
    """A snapshot of an image in memory. `hint` has its changes; None if they are not known."""

    content: bytes
    hint: tuple[Extent, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes of the image."""
        return len(self.content)

    def extents(self) -> Iterator[Extent]:
        """Yield the whole image as data."""
        # Extents are never empty, so an empty image has none.
        if self.content:
            yield Extent(0, len(self.content), data=True)

    def changes(self) -> tuple[Extent, ...] | None:
        """Return the changes from `hint`."""
        return self.hint

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError beyond the end."""
        # A slice would be shorter in silence, and take negative numbers.
        if offset < 0 or length < 0 or offset + length > len(self.content):
            raise SourceError(f"bytes {offset} to {offset + length} are outside of the image")
        return self.content[offset : offset + length]


@dataclass
class MemorySource:
    """A source whose content a test sets. A snapshot keeps the content that it began with."""

    content: bytes = b""
    verifier: str = "full"
    wrap: Callable[[MemoryImage], Snapshot] = field(default=lambda image: image)
    """Turns each snapshot into another one, for instance into one that fails."""

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the content."""
        yield self.wrap(MemoryImage(self.content))


class MemoryRepository(Repository):
    """A real repository in a directory, with an image in memory as its source."""

    def __init__(self, directory: Path, config: JobConfig) -> None:
        super().__init__(directory, config)
        self.memory = MemorySource()
        """The source. Set its content before a backup."""

    @classmethod
    def make(cls, directory: Path, storage: Config | None = None) -> "MemoryRepository":
        """Make a repository with the section `storage`, or with the default one."""
        # No plugin has this name: `source` below takes its place.
        plain = {"source": {"type": "memory"}, "verifier": "full", "storage": storage or {"type": "chunked"}}
        # Thousands of trials would write a reserve, and none of them waits for a real disk to be full.
        return cls.initialize(directory, typed({"format": FORMAT, **plain, "reserve": 0}, JobConfig, "config"))

    def source(self) -> Source:
        """Return the image in memory."""
        return self.memory


def changing() -> None:
    """Do nothing: a recording, which counts changes of `MemoryBlobs`, and may let one fail, takes the place of this."""


class MemoryBlobs(UserDict[str, bytes]):
    """What a storage keeps elsewhere, such as the objects of a bucket, by name. A recording can let a change fail.

    A change is an object that is put, replaced or deleted. Who changes it, such as a server for tests, must let an
    OSError reach the storage as a failure.
    """

    def __setitem__(self, name: str, content: bytes) -> None:
        """Put an object."""
        changing()
        super().__setitem__(name, content)

    def __delitem__(self, name: str) -> None:
        """Delete an object."""
        changing()
        super().__delitem__(name)
