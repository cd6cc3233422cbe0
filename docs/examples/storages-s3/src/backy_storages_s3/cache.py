"""What this machine remembers of a store, in the repository's own folder for it. It may be lost at any time.

`owner` has who this writer is, `memory` what was in the store when it last wrote, and `<id>.packs` are copies. Before
the store is changed, `memory` says so, durably: after a crash at any time nobody relies on a list that is out of date.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from backy.durable import read_file, sync_folder, write_file
from backy.errors import StorageError

log = logging.getLogger(__name__)
_LARGEST = 2**28
SUFFIX = ".packs"


class Known(msgspec.Struct, frozen=True):
    """A small object, as it was last seen."""

    etag: str
    digest: str
    """SHA-256 of the content, in hexadecimal."""


class Memory(msgspec.Struct):
    """The content of the file."""

    address: str
    identity: str = ""
    lease: str = ""
    """ETag of the lease as it was last taken."""
    token: int = 0
    """The number that it had."""
    changing: bool = True
    """Whether the store may have changed since."""
    files: dict[str, Known] = {}
    """The objects beside the packs."""


class Cache:
    """The folder."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self._address = address
        self.memory = self.read()
        kept = self._owner()
        self._is_known = bool(kept)
        self.owner = kept or secrets.token_hex(8)
        """Stands for this writer in the lease."""
        if not kept:
            # of a copy of the directory, that of the other one
            self.memory.lease = ""

    def _owner(self) -> str:
        with suppress(OSError):
            owner, _, place = read_file(self.folder / "owner").decode(errors="replace").strip().partition(" ")
            return owner if place == self._place() else ""
        return ""

    def _place(self) -> str:
        """Tell this directory from its copies: two of them are two writers."""
        machine = "-"
        with suppress(OSError):
            machine = read_file(Path("/etc/machine-id")).decode("ascii", "replace").strip()
        # not by its inode: a directory that comes back from a backup of the machine is the same
        return f"{machine} {self.folder.absolute()}"

    def read(self) -> Memory:
        """Return what is written down."""
        with suppress(OSError, msgspec.DecodeError):
            found = msgspec.json.decode(read_file(self.folder / "memory", _LARGEST), type=Memory)
            if found.address == self._address:
                return found
        return Memory(self._address)

    def know_owner(self) -> None:
        """Write down who this is, durably: a writer who forgets that has to wait for itself."""
        if not self._is_known:
            with told(self.folder):
                self._write("owner", f"{self.owner} {self._place()}\n".encode(), durable=True)
                sync_folder(self.folder.parent)
            self._is_known = True

    @property
    def is_possible(self) -> bool:
        """Whether there is a repository to remember anything in: not yet, where one is made anew of a store."""
        return self.folder.parent.is_dir()

    def save(self, *, durable: bool = False) -> None:
        """Write down what is remembered.

        Raises:
            StorageError: it can not be written.
        """
        self._write("memory", msgspec.json.encode(self.memory), durable=durable)

    def _write(self, name: str, content: bytes, *, durable: bool) -> None:
        with told(self.folder):
            self.folder.mkdir(mode=0o750, exist_ok=True)
            write_file(self.folder / name, content, 0o640, durable=durable)

    def begin(self) -> None:
        """Note that the store is about to be changed, before it is."""
        if not self.memory.changing:
            self.memory.changing = True
            self.save(durable=True)

    def settle(self) -> None:
        """Note that all changes of the store are in the list."""
        self.memory.changing = False
        self.save()

    def forget(self) -> None:
        """Forget the store: another one is there."""
        self.memory = Memory(self.memory.address)
        with suppress(StorageError):
            self.save()

    # copies -----------------------------------------------------------------------------------------------------------

    def copy(self, name: str) -> bytes | None:
        """Return the copy of an object, if there is one, and it is what was last seen of it."""
        known = self.memory.files.get(name)
        with suppress(OSError):
            content = read_file(self.folder / name, _LARGEST)
            if known and hashlib.sha256(content).hexdigest() == known.digest:
                return content
        return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep a copy; one that can not be kept is read again from the store."""
        with suppress(StorageError):
            self._write(name, content, durable=False)

    def drop(self, name: str) -> None:
        """Drop a copy."""
        with suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Raise StorageError where something in a folder can not be written."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{folder} can not be written to: {error.strerror}") from error
