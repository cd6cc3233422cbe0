"""Where the scheduler has its files, which commands need to know without all else; where it listens, and its limits."""

import socket
from pathlib import Path
from typing import Annotated

import msgspec

from backy.config import Size
from backy.scheduler.configuration.document import ConfigurationError, Document

RECEIVE_BUFFER = 16 * 1024
"""Bytes that the system buffers for a connection. They are processed in one piece, which must not take long."""

STATUS = "status"
"""Name of the status file in the base directory."""
_GLOBAL = ("global", "config")
"""Names of the section `global`. Files of backy 2.2 have the second one."""
_LIMITED = ("backup", "restore", "scrub", "copies")
_ADDRESS = r"[\w+-]+(\.[\w+-]+)*(@[\w-]+(\.[\w-]+)*)?"


class Location(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The files of a scheduler: the keys of `global` that other commands need."""

    base_dir: Path = Path("/srv/backy")
    """Directory of the repositories, each in a folder with its job's name. The scheduler never creates it."""
    status_file: Path | None = None
    """The file that `backy check` reads; None means `status` in the base directory."""

    @property
    def status_path(self) -> Path:
        """Path of the status file."""
        return self.status_file or self.base_dir / STATUS


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename="kebab", omit_defaults=True):
    """Bytes a second, at most, of all jobs together."""

    backup: Size | None = None
    restore: Size | None = None
    scrub: Size | None = None
    copies: Size | None = None
    ceph_pool: dict[str, Size] = {}
    """What backups read from each pool of Ceph."""

    @property
    def named(self) -> dict[str, Size]:
        """The limits as repositories have them: by what is done, or a kind and the name of what is read from."""
        pools = {f"ceph-pool/{pool}": rate for pool, rate in self.ceph_pool.items()}
        return {**{name: rate for name in _LIMITED if (rate := getattr(self, name))}, **pools}


class Notify(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """Who is told of what needs somebody."""

    # Nothing with which a text could get out of its header, nor what Python's parser of addresses fails at.
    to: Annotated[str, msgspec.Meta(pattern=rf"(?a)\A *{_ADDRESS}( *, *{_ADDRESS})* *\Z")]
    """Addresses, with commas between them."""
    program: Path = Path("/usr/sbin/sendmail")
    """The mailer, or another program that takes a mail."""
    failures: Annotated[int, msgspec.Meta(ge=1)] = 3
    """Failed runs in a row from which on people are told."""
    per_hour: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 6
    """Largest number of mails in an hour."""


def load_location(path: Path) -> Location:
    """Read the `Location` of the scheduler, and no more of the configuration than that needs.

    Raises:
        ConfigurationError: the file can not be read, is not YAML up to there, or one of the keys is wrong.
    """
    # `backy check` must answer at once and in any case: all of ten thousand jobs takes most of a second to read, and a
    # mistake in one job would keep it from its work.
    document = Document(path, only=_GLOBAL)
    # A file that is no mapping means the defaults here: those who read all of it report the problem.
    sections = document.content if isinstance(document.content, dict) else {}
    name = next((name for name in _GLOBAL if sections.get(name)), _GLOBAL[0])
    before = len(document.problems)
    location = document.section(sections.get(name) or {}, Location, (name,))
    if location is None or len(document.problems) > before:
        raise ConfigurationError(path, document.problems)
    return location


def global_name(content: object) -> str:
    """Return the name by which a document has the section `global`."""
    return "config" if isinstance(content, dict) and "config" in content else "global"


def listener(address: str, port: int) -> socket.socket:
    """Open a socket that listens at an IP address of this machine. Raises OSError, gaierror for another text."""
    # As bytes: a text that can be no name of a host would be another error.
    flags = socket.AI_PASSIVE | socket.AI_NUMERICHOST
    family, _, _, _, where = socket.getaddrinfo(address.encode(), port, type=socket.SOCK_STREAM, flags=flags)[0]
    # One of IPv6 is for IPv6 alone, or `::` would take the port of 0.0.0.0 as well.
    opened = socket.create_server(where, family=family)
    # Connections inherit the size of the buffer.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return opened
