"""The drill `qemu`: file systems of a revision are checked by libguestfs, and the guest is booted by QEMU.

Nothing of it is for import by others.
"""

import msgspec

from backy.api import Config, Drill
from backy.config import Size, typed
from backy.hookspecs import hookimpl

BACKY_CONTRACT = "1.0"


class QemuConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The options of the command."""

    type: str
    command: str = "true"
    """What the guest's shell runs."""
    memory: Size = Size(2**30)
    """Bytes of the guest's memory."""


@hookimpl
def backy_drill(config: Config) -> Drill:
    """Make the drill from the options of the command."""
    from backy_drills.drill import QemuDrill  # not above: to look at the options needs nothing of it

    options = typed(config, QemuConfig, "drill")
    return QemuDrill(options.command, options.memory)
