"""The moment `guest-agent`: what the entry point names. QEMU's agent in a guest freezes its file systems."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from backy.api import Config, ConfigError, Moment
from backy.config import Duration, typed
from backy.hookspecs import hookimpl
from backy.resting import resting


class AgentConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `moment`: a machine of libvirt, or the socket of the agent's port."""

    type: str
    domain: str | None = None
    uri: str | None = None
    socket: Path | None = None
    limit: Duration = Duration(seconds=10)


@hookimpl
def backy_moment(config: Config) -> AbstractContextManager[Moment]:
    """Make the moment from its section."""
    section = typed(config, AgentConfig, "config.moment")
    if (section.domain is None) == (section.socket is None):
        raise ConfigError("config.moment: has either 'domain', a machine of libvirt, or 'socket', the agent's")
    if section.limit <= Duration(0):
        raise ConfigError("config.moment.limit: is the longest time that the guest is frozen, such as 10s")
    domain = ["domain", section.domain or "", *([section.uri] if section.uri else [])]
    place = domain if section.domain else ["socket", str(section.socket)]
    # a program of its own, which can run when backy is gone
    program = [sys.executable, "-m", "backy_sources_qemu.guest.agent"]
    freeze, thaw = ([*program, act, *place] for act in ("freeze", "thaw"))
    return resting(freeze, thaw, section.limit, frozen=True)
