"""Image files and block devices as a source for backy.

Configuration: `filename`, the absolute path of the image or device, and `freeze`. `OpenFile`, `opened`, `WriteWatch`
and the module `reflink` are for other plugins as well.
"""

from pathlib import Path
from typing import Any

import msgspec

from backy.api import Config, ConfigError, Job, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_file.source import FREEZES, FileSource, OpenFile, WriteWatch, opened


class FileConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `source` of a job."""

    type: str
    filename: Path
    """Absolute path of an image file or a block device."""
    freeze: Any = "during-backup"
    """How long the clone exists that freezes an image file: one of `FREEZES`."""


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    section = typed(config, FileConfig, "config.source")
    # YAML reads `off` without quotes as False, so that is taken as well.
    freeze = "off" if section.freeze is False else str(section.freeze)
    if freeze not in FREEZES:
        raise ConfigError(f"config.source.freeze: {section.freeze!r} is none of {', '.join(FREEZES)}")
    return FileSource(section.filename, job.id, freeze)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for the path of an image or a block device."""
    if not argument or "\0" in argument:
        raise ConfigError("SOURCE of the type 'file' is the path of an image file or a block device")
    return {"filename": str(Path(argument).absolute())}


# The hooks, and what other sources may use.
__all__ = ["FileSource", "OpenFile", "WriteWatch", "backy_source", "backy_source_config", "opened"]
