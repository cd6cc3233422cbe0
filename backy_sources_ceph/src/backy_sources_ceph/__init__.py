"""The source type `ceph-rbd`: its name and contract; the source itself is not built yet."""

from __future__ import annotations

from typing import NoReturn

from backy.api import ConfigError
from backy.hookspecs import hookimpl

_NOT_BUILT = "the source type 'ceph-rbd' is not built yet in this version; use 'file', or stay with backy 2 for it"


@hookimpl
def backy_source() -> NoReturn:
    """Say that there is nothing yet."""
    raise ConfigError(_NOT_BUILT)


@hookimpl
def backy_source_config() -> NoReturn:
    """Say that there is nothing yet."""
    raise ConfigError(_NOT_BUILT)
