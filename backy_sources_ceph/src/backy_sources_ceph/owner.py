"""The owner of a snapshot or of a lease, in a form that other backup servers read."""

from __future__ import annotations

import socket

import msgspec

from backy.api import Job


class Owner(msgspec.Struct, frozen=True):
    """A job on a backup server, as JSON."""

    id: str
    """The job's id, which stays the same when its repository is moved."""
    job: str
    """The job's name."""
    host: str
    """Name of the backup server at that time."""

    @classmethod
    def of(cls, job: Job) -> Owner:
        """Return the owner that stands for `job` on this machine."""
        return cls(job.id, job.name, socket.gethostname())

    def encode(self) -> str:
        """Return the owner as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Owner | None:
        """Return the owner in `text`; None if it is something else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:  # somebody else wrote it, or a power loss cut it short
            return None

    def __str__(self) -> str:
        # Messages are for people: the id would tell them nothing.
        return f"job '{self.job}' on {self.host}"
