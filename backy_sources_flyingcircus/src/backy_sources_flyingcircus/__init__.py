"""RBD images of the Flying Circus. The source asks the virtual machine's host by Consul for a consistent snapshot.

Configuration: `FlyingCircusConfig`, which has the keys of `ceph-rbd` and its own.
"""

from backy.api import Config, Job, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_ceph import backy_live_restore, backy_restore_target
from backy_sources_flyingcircus.source import FlyingCircusConfig, FlyingCircusSource, parse_source


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return FlyingCircusSource(typed(config, FlyingCircusConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for an image and its virtual machine."""
    return parse_source(argument)


# The hooks, and the classes for sources that build upon this one. A restore is that of `ceph-rbd`: a machine that is
# restored does not run, so nothing is asked of its host.
__all__ = ["FlyingCircusConfig", "FlyingCircusSource", "backy_live_restore", "backy_restore_target"]
__all__ += ["backy_source", "backy_source_config"]
