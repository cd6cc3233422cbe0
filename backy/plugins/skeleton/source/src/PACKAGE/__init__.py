"""NAME as a source for backy: what the entry point names.

Configuration: `filename`, the absolute path of the image.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from backy.api import Config, ConfigError, Source
from backy.config import typed
from backy.hookspecs import hookimpl

from PACKAGE.source import CLASSSource

BACKY_CONTRACT = "1.0"


class CLASSConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `source` of a job. What users write is checked against it."""

    type: str
    filename: str


@hookimpl
def backy_source(config: Config) -> Source:
    """Make the source from its section."""
    return CLASSSource(Path(typed(config, CLASSConfig, "config.source").filename))


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Make the section of what follows `backy init NAME`."""
    if not argument:
        raise ConfigError("SOURCE of the type 'NAME' is the path of an image")
    return {"filename": str(Path(argument).absolute())}
