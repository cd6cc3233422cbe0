"""The sections `source` of jobs, and how disks are named on the command line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from backy.api import ConfigError
from backy.config import Size

Format = Literal["qcow2", "raw"]
FORMS: Final = "DOMAIN/DISK as in web1/vda, QMP-SOCKET,NODE as in /run/web1.qmp,disk, or the path of an image"


class QemuConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A disk of a machine: by libvirt's name, by QEMU's monitor, or the image of one that never runs meanwhile."""

    type: str
    domain: str | None = None
    """Name of a machine of libvirt."""
    disk: str | None = None
    """Target of the disk in the machine, such as `vda`."""
    uri: str | None = None
    """URI of libvirt; None for the one that virsh chooses."""
    qmp: Path | None = None
    """The socket of QEMU's monitor, in the protocol QMP."""
    node: str | None = None
    """Name of the disk's block node."""
    image: Path | None = None
    """The image that is read while the machine is shut down."""
    format: Format | None = None
    """Format of `image`; None to go by its name."""
    scratch: Path = Path("/var/tmp")  # noqa: S108  # the file that is made there has no name
    """Folder for what the machine overwrites during a backup."""
    scratch_limit: Size | None = None
    """Bytes that this may take; None for half of what is free, or what the disk takes if that is less."""

    def __post_init__(self) -> None:
        """Refuse what does not name one disk."""
        for one, other in (("domain", "disk"), ("qmp", "node")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"'{one}' and '{other}' belong together")
        if self.domain is not None and (self.qmp or self.image):
            raise ValueError("'domain' needs no 'qmp' and no 'image': libvirt knows where its disk is")
        if self.domain is None and self.qmp is None and self.image is None:
            raise ValueError("write 'domain' and 'disk', 'qmp' and 'node', or 'image'")

    @property
    def title(self) -> str:
        """The disk as people name it."""
        return (
            f"{self.domain}/{self.disk}" if self.domain else f"{self.qmp},{self.node}" if self.qmp else f"{self.image}"
        )


class NbdConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """An export of an NBD server."""

    type: str
    uri: str
    """Its URI: nbd://, nbds:// or nbd+unix://."""
    frozen: bool = False
    """Whether nobody writes to the export while it is read."""
    bitmap: str | None = None
    """Name of a bitmap of QEMU that tells what changed; `{parent}` stands for the id of the earlier revision."""

    def __post_init__(self) -> None:
        """Refuse what does not look like a URI of NBD."""
        if not re.match(r"nbds?(\+unix|\+vsock)?://", self.uri):
            raise ValueError(f"{self.uri!r} is no URI such as nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH")


def parse_disk(words: str) -> dict[str, str]:
    """Turn the name of a disk into keys of `QemuConfig`.

    Raises:
        ConfigError: `words` has another form.
    """
    if words.startswith(("/", "./", "../")):
        # the path of a socket may have commas, the name of a node has none
        socket, comma, node = words.rpartition(",")
        if comma and socket and node and "/" not in node:
            return {"qmp": str(Path(socket).absolute()), "node": node}
        if not words.endswith(("/", ",")):
            return {"image": str(Path(words).absolute())}
    domain, slash, disk = words.rpartition("/")
    if slash and re.fullmatch(r"[a-z]{1,8}[0-9]{0,3}", disk) and re.fullmatch(r"[^/\s-][^/\s]*", domain):
        return {"domain": domain, "disk": disk}
    raise ConfigError(f"'{words}' names no disk: write {FORMS}")


def check_options(options: Mapping[str, str]) -> None:
    """Raise ConfigError if there are options: these targets have none."""
    if options:
        raise ConfigError(f"there is no option '{next(iter(options))}' for this target; it has none")
