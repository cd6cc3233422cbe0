"""The moment `guest-agent`: what the entry point names. QEMU's agent in a guest freezes its file systems."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from backy.api import Config, ConfigError, Moment
from backy.config import Duration, typed
from backy.hookspecs import hookimpl
from backy.resting import Rested, resting
from backy_sources_qemu.guest import agent

log = logging.getLogger(__name__)


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
    return _frozen(section)


@contextmanager
def _frozen(section: AgentConfig) -> Iterator[Moment]:
    domain = [section.domain, section.uri or ""] if section.domain else []
    if domain and agent.is_shut_off(*domain):
        log.info("%s is shut off, so that nothing has to be frozen", section.domain)
        yield Rested(frozen=False)
        return
    # a program of its own, which can run when backy is gone
    program = [sys.executable, "-m", "backy_sources_qemu.guest.agent"]
    place = ["domain", *domain] if domain else ["socket", str(section.socket)]
    freeze, thaw = ([*program, act, *place] for act in ("freeze", "thaw"))
    with resting(freeze, thaw, section.limit, frozen=True) as rested:
        yield rested
