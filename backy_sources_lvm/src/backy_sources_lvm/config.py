"""The section `source` of a job, and the names of volumes on the command line."""

import re
from typing import Annotated, Final

import msgspec

from backy.api import ConfigError
from backy.config import Size

NAME: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126}")
"""What may be the name of a volume group or a volume (lvm(8)). LVM keeps some for itself, and then says so."""


class LvmConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """A volume, and how much its snapshots may use."""

    type: str
    group: str
    """Name of the volume group."""
    volume: str
    """Name of the volume in it."""
    pool_limit: Annotated[float, msgspec.Meta(gt=0, le=100)] = 90.0
    """Percentage of a thin pool's data or metadata from which on no snapshot is made in it."""
    snapshot_size: Size | None = None
    """Bytes of the snapshot of a volume that is not thin; None for a fifth of it, or what the group has left."""

    def __post_init__(self) -> None:
        """Refuse what LVM would take for something else."""
        for key, name in (("group", self.group), ("volume", self.volume)):
            if not NAME.fullmatch(name):
                raise ValueError(f"{key} is a name that LVM would accept, not {name!r}")

    @property
    def specification(self) -> str:
        """The volume as LVM's programs name it."""
        return f"{self.group}/{self.volume}"


def parse_specification(words: str) -> dict[str, str]:
    """Turn VG/NAME into keys of `LvmConfig`; /dev/VG/NAME is the same.

    Raises:
        ConfigError: `words` has another form.
    """
    group, slash, volume = words.removeprefix("/dev/").partition("/")
    if not (slash and NAME.fullmatch(group) and NAME.fullmatch(volume)):
        raise ConfigError(f"'{words}' names no logical volume: write VG/NAME")
    return {"group": group, "volume": volume}
