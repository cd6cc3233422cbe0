"""Disks of running QEMU machines as a source for backy. The entry point names this module.

Configuration: `qmp`, the path of QEMU's QMP socket; `node`, the name of the disk's block node; `scratch`, a folder for
blocks that the guest overwrites during a backup.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from backy.api import Config, ConfigError, Job, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_qemu.source import QemuSource

BACKY_CONTRACT = "1.0"


class QemuConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `source` of a job."""

    type: str
    qmp: str
    node: str
    scratch: str = "/var/tmp"  # noqa: S108  # large, and only folders of our own are made in it


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    section = typed(config, QemuConfig, "config.source")
    return QemuSource(Path(section.qmp), section.node, Path(section.scratch), job.id)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for QMP-SOCKET,NODE."""
    # The path of the socket may have commas, the name of a node has none.
    socket, comma, node = argument.rpartition(",")
    if not (socket and comma and node):
        raise ConfigError("SOURCE of the type 'qemu' is QMP-SOCKET,NODE, as in '/run/vm7.qmp,disk'")
    return {"qmp": str(Path(socket).absolute()), "node": node}
