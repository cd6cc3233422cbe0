"""NAME as a source for backy. The entry point in pyproject.toml names this module.

Configuration: `filename`, the absolute path of the image.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from backy.api import Config, ConfigError, Source
from backy.config import typed
from backy.hookspecs import hookimpl

from PACKAGE.source import CLASSSource

# The version of the contract that this plugin was written for. A backy without it refuses the plugin.
BACKY_CONTRACT = "1.0"


class CLASSConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `source` of a job. backy checks the user's configuration against it."""

    type: str
    filename: str
    """Absolute path of the image."""


@hookimpl
def backy_source(config: Config) -> Source:
    """Make the source from its section. Open nothing here: the image may be gone, and that matters only to a backup."""
    return CLASSSource(Path(typed(config, CLASSConfig, "config.source").filename))


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section, without `type`, for the word that follows `backy init NAME`."""
    if not argument:
        raise ConfigError("SOURCE of the type 'NAME' is the path of an image")
    # Commands run in any folder, so the path must not depend on it.
    return {"filename": str(Path(argument).absolute())}
