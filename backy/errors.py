"""Errors that backy reports in one line, and the exit codes that they end a command with.

Plugins raise them through `backy.api`.
"""

from __future__ import annotations

from enum import IntEnum

MOST_FINDINGS = 16
"""Of how many damaged or differing chunks one command keeps the evidence. All others are only counted."""


class ExitCode(IntEnum):
    """What a command tells its caller: a contract, documented in docs/reference/exit-codes.md.

    Anything but `DONE` means that what was asked for did not happen.
    """

    DONE = 0
    """The command did what was asked."""

    FAILED = 1
    """The command failed; one line on standard error says why."""

    USAGE = 2
    """The command line was not understood; nothing was started."""

    UNAVAILABLE = 69
    """Another scheduler serves the base directory (EX_UNAVAILABLE of sysexits.h)."""

    BUSY = 75
    """Another command holds repository or source; the same call may succeed later (EX_TEMPFAIL of sysexits.h)."""


class BackyError(Exception):
    """Something an operator can understand and act on: its text is the one line that is shown."""

    exit_code: ExitCode = ExitCode.FAILED


class ConfigError(BackyError):
    """A configuration is wrong; the text names the key's path and what it should be."""


class PluginError(BackyError):
    """A plugin is missing, ambiguous or broken; the text names plugin, distribution and cause."""


class RepositoryError(BackyError):
    """A repository is missing, not one of this version, or in no state for the command."""


class RepositoryBusyError(BackyError):
    """Another command holds the lock that this one needs."""

    exit_code = ExitCode.BUSY


class RevisionNotFoundError(BackyError):
    """No complete revision, or more than one, answers to what was asked for."""


class UnknownTagError(BackyError):
    """A tag is not in the job's schedule."""


class SourceError(BackyError):
    """A source is missing, unreadable, or changed in a way that forbids going on."""


class SourceBusyError(SourceError):
    """Somebody else is backing up the source; the same backup may succeed later."""

    exit_code = ExitCode.BUSY


class StorageError(BackyError):
    """A storage can not take or give what was asked."""


class DamageError(StorageError):
    """Stored data is missing or fails its own check."""


class ChunkDamageError(DamageError):
    """One stored chunk is missing, unreadable or not what its id says."""

    def __init__(self, chunk_id: bytes, cause: str, evidence: bytes | None = None, base: bytes | None = None) -> None:
        super().__init__(f"chunk {chunk_id.hex()}: {cause}")
        self.chunk_id = chunk_id
        self.cause = cause
        self.evidence = evidence
        """What is stored instead, as far as it can be read."""
        self.base = base
        """The id of the chunk that is really damaged, if this one is only made of it."""

    def without_evidence(self) -> ChunkDamageError:
        """Return the same, free of what it holds in memory: for those who collect many."""
        return ChunkDamageError(self.chunk_id, self.cause, base=self.base)


class VerificationError(BackyError):
    """A fresh revision differs from its source."""


class HintError(VerificationError):
    """A fresh revision differs from its source, which had told what to read: it may have told too little."""


class TargetError(BackyError):
    """A restore target is missing, too small, or not to be written to."""
