"""Images of Ceph clusters (RBD) as a source for backy, and a base for sources that make snapshots in another way.

Configuration: `CephConfig`. A source that builds upon this one inherits from `CephSource` and overrides `freeze`. For
keys of its own it inherits from `CephConfig`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from backy.api import Config, Job, LiveTarget, RestoreTarget, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_ceph.connection import CephConfig, parse_specification
from backy_sources_ceph.live import RbdLiveTarget
from backy_sources_ceph.source import PREFIX, CephSource, Image
from backy_sources_ceph.target import opened_target, plan_target


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return CephSource(typed(config, CephConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for an image that is named as for the program `rbd`."""
    return parse_specification(argument)


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to an image that is named as for the program `rbd`."""
    # The plan is made before anything is opened, so that a wrong name or option costs no connection.
    return opened_target(plan_target(argument, options, config), size, force=force)


@hookimpl
def backy_live_restore(argument: str, options: Mapping[str, str], config: Config) -> LiveTarget:
    """Restore to an image that is named as for the program `rbd`, and can be used at once."""
    return RbdLiveTarget(plan_target(argument, options, config))


# Other distributions build upon these names; everything else may change.
__all__ = ["PREFIX", "CephConfig", "CephSource", "Image", "parse_specification"]
__all__ += ["backy_live_restore", "backy_restore_target"]
