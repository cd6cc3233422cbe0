"""Who made a snapshot or holds a lease, for other backup servers to read."""

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
    """Where the job was at that time."""

    @classmethod
    def of(cls, job: Job) -> Owner:
        """Return what others shall read of `job`."""
        return cls(job.id, job.name, socket.gethostname())

    def encode(self) -> str:
        """Return it as JSON."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Owner | None:
        """Read it; what is anything else has no owner."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:
            return None

    def __str__(self) -> str:
        return f"job '{self.job}' on {self.host}"
