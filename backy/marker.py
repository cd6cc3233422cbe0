"""The file by which a store is known wherever it is: its format and its identity. Storages of plugins may use it."""

from pathlib import Path

from backy.contract.images import ID_PATTERN
from backy.durable import read_file, write_file
from backy.errors import StorageError


class Marker:
    """The file at `path`: a line with the format, such as `backy 3 chunks`, and a line with the store's identity."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self._format = f"backy 3 {kind}"

    @property
    def identity(self) -> str:
        """The identity of the store.

        Raises:
            StorageError: the file is missing, unreadable, or of another format.
        """
        try:
            content = read_file(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise StorageError(f"{self.path} is missing: there is no store, or it lost its identity") from None
        except OSError as error:
            raise StorageError(f"{self.path} can not be read: {error.strerror}") from error
        # nothing is guessed from a torn file: every revision names the identity that its data has
        found, _, rest = content.decode("ascii", "replace").partition("\n")
        identity = rest.removesuffix("\n")
        if found != self._format or not ID_PATTERN.fullmatch(identity) or rest == identity:
            raise StorageError(f"{self.path} says {content[:100]!r}: no store of the format '{self._format}'")
        return identity

    def write(self, identity: str) -> None:
        """Make `identity` the store's, durably, unless it has one.

        Raises:
            StorageError: the file is of another format; it is left as it is.
        """
        if self.path.exists():
            self.identity  # noqa: B018  # raises if there is something else, which is not to be overwritten
        else:
            write_file(self.path, f"{self._format}\n{identity}\n".encode())
