"""Logical volumes of LVM as a source for backy, thin and thick ones, and as targets of restores.

Configuration: `LvmConfig` of the module `config`.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from backy.api import Config, Job, RestoreTarget, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_lvm.config import LvmConfig, parse_specification
from backy_sources_lvm.source import LvmSource
from backy_sources_lvm.target import opened_target, plan_target


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return LvmSource(typed(config, LvmConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for a volume that is named as LVM's programs do."""
    return parse_specification(argument)


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], config: Config, size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to a volume, which is made."""
    # The plan is made before any program is called.
    return opened_target(plan_target(argument, options, config), size, force=force)
