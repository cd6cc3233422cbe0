"""RBD images of the Flying Circus: the host of the virtual machine is asked for a consistent snapshot by Consul.

Configuration: `FlyingCircusConfig`, which has the keys of `ceph-rbd` and its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from backy.api import Config, Job, RestoreTarget, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_ceph import opened_target, plan_target
from backy_sources_flyingcircus.config import FlyingCircusConfig, parse_source
from backy_sources_flyingcircus.source import FlyingCircusSource


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return FlyingCircusSource(typed(config, FlyingCircusConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Take the image as the program `rbd` names it, and its virtual machine."""
    return parse_source(argument)


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to an image, as `ceph-rbd` does."""
    return opened_target(plan_target(argument, options, config), size, force=force)


__all__ = [
    "FlyingCircusConfig",
    "FlyingCircusSource",
    "backy_restore_target",
    "backy_source",
    "backy_source_config",
]
