"""Images of Ceph clusters (RBD) as a source for backy, and what sources that build upon it use.

Configuration: `CephConfig`. Whoever has another way of making snapshots inherits from `CephSource` and overrides
`freeze`, and inherits from `CephConfig` for keys of his own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from backy.api import Config, Job, RestoreTarget, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_ceph.config import CephConfig, parse_specification
from backy_sources_ceph.connection import opened_pool, reported
from backy_sources_ceph.image import PREFIX, Image, opened_image
from backy_sources_ceph.source import CephSource
from backy_sources_ceph.target import opened_target, plan_target


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return CephSource(typed(config, CephConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Take the image as the program `rbd` names it."""
    return parse_specification(argument)


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to the image that is named as for the program `rbd`."""
    return opened_target(plan_target(argument, options, config), size, force=force)


__all__ = [
    "PREFIX",
    "CephConfig",
    "CephSource",
    "Image",
    "backy_restore_target",
    "backy_source",
    "backy_source_config",
    "opened_image",
    "opened_pool",
    "opened_target",
    "parse_specification",
    "plan_target",
    "reported",
]
