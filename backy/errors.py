"""Errors that backy reports in one line, and the exit codes with which they end a command.

Plugins raise them through `backy.api`.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from logging import Logger

# Evidence of a chunk is up to 4 MiB, twice for a mismatch, and a few chunks show what has happened.
MOST_FINDINGS = 16
"""Number of damaged or differing chunks of which one command keeps the evidence. Others are only counted."""


class ExitCode(IntEnum):
    """The exit code of a command, as promised in docs/reference/exit-codes.md.

    Any code but `DONE` means that the command did not do what was asked.
    """

    DONE = 0
    """The command did what was asked."""

    FAILED = 1
    """The command failed; one line on standard error says why."""

    USAGE = 2
    """The command line was not understood; nothing was started."""

    FULL = 28
    """A disk or a quota is full (the number of ENOSPC)."""

    UNAVAILABLE = 69
    """Another scheduler serves the base directory (EX_UNAVAILABLE of sysexits.h)."""

    BUSY = 75
    """Another command uses repository or source; the same call may succeed later (EX_TEMPFAIL of sysexits.h)."""


def is_full(error: BaseException | None) -> bool:
    """Tell whether an error, or one that it came from, is that a disk or a quota is full."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    return error is not None and is_full(error.__cause__)


class BackyError(Exception):
    """An error that an operator can act on. Its text is the one line that is shown."""

    exit_code: ExitCode = ExitCode.FAILED


class ConfigError(BackyError):
    """A configuration is wrong; the text names the path of the key and the value that is expected."""


class PluginError(BackyError):
    """A plugin is missing, ambiguous or broken; the text names plugin, distribution and cause."""


class RepositoryError(BackyError):
    """A repository is missing, has another version, or is in a state that the command can not work with."""


class RepositoryBusyError(BackyError):
    """Another command holds the lock that this one needs."""

    exit_code = ExitCode.BUSY


class RevisionNotFoundError(BackyError):
    """No complete revision, or more than one, fits a specification."""


class TamperingError(BackyError):
    """Somebody else than backy has changed a repository."""


class WitnessError(BackyError):
    """A file does not tell of any journal."""


class ForgettingRefusedError(BackyError):
    """More is to be forgotten than a slip of the pen should be able to."""


class UnknownTagError(BackyError):
    """A tag is not in the job's schedule."""


class SourceError(BackyError):
    """A source is missing or unreadable, or has changed so that the backup can not go on."""


class SourceBusyError(SourceError):
    """Another backup uses the source; the same backup may succeed later."""

    exit_code = ExitCode.BUSY


class StorageError(BackyError):
    """A storage can not store or return data."""


class DamageError(StorageError):
    """Stored data is missing or fails its own check."""


class UnreadError(DamageError):
    """A file that is there can not be read now. That tells nothing of what it has, so nothing is given up for it."""


class RecordDamageError(DamageError):
    """The record of a revision can not be read."""

    def __init__(self, revision_id: str, cause: DamageError) -> None:
        super().__init__(str(cause))
        self.revision_id = revision_id
        self.unread = isinstance(cause, UnreadError)
        """Whether the record may be sound."""


class ChunkDamageError(DamageError):
    """A stored chunk is missing, unreadable, or does not have its id."""

    def __init__(self, chunk_id: bytes, cause: str, evidence: bytes | None = None, base: bytes | None = None) -> None:
        super().__init__(f"chunk {chunk_id.hex()[:12]}: {cause}")
        self.chunk_id = chunk_id
        self.cause = cause
        self.evidence = evidence
        """The bytes that are stored instead; None if they can not be read."""
        self.base = base
        """Id of the chunk that is damaged, if this chunk is only made of it."""

    def without_evidence(self) -> "ChunkDamageError":
        """Return the same error without its evidence."""
        # Lists of errors keep this one, so that a disk full of damage does not fill the memory.
        bare = ChunkDamageError(self.chunk_id, self.cause, base=self.base)
        bare.args = self.args
        return bare

    def at(self, offset: int) -> "ChunkDamageError":
        """Return the same error, with the place of the chunk in its text: bytes from the beginning of an image."""
        self.args = (f"chunk {self.chunk_id.hex()[:12]} at byte {offset}: {self.cause}",)
        return self


class VerificationError(BackyError):
    """A fresh revision differs from its source."""


class TargetError(BackyError):
    """A restore target is missing, too small, or can not be written."""


class PeerError(BackyError):
    """The other side of a copy can not be reached, refuses, or sends what it should not."""


@contextmanager
def raising(kind: type[BackyError], what: str) -> Iterator[None]:
    """Raise an OSError as an error of this kind, whose text begins with `what`, and a SourceError with its own text."""
    try:
        yield
    except SourceError as error:
        raise kind(str(error)) from error
    except OSError as error:
        raise kind(f"{what}: {error.strerror}") from error


@contextmanager
def warned(log: Logger, what: str, of: type[Exception] | tuple[type[Exception], ...] = SourceError) -> Iterator[None]:
    """Log an error `of` these kinds as a warning that begins with `what`, and go on."""
    try:
        yield
    except of as error:
        log.warning("%s: %s", what, getattr(error, "strerror", None) or error)
