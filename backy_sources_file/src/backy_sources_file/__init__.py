"""Image files and block devices as a source for backy.

Configuration: `filename`, the absolute path of the image or device, and `freeze`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from backy.api import Config, ConfigError, Job, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_file.source import FREEZES, FileSource, Freeze


class FileConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The section `source` of a job."""

    type: str
    filename: str
    """Absolute path of an image file or a block device."""
    # YAML reads `off` without quotes as False, so that is taken as well.
    freeze: str | bool = "during-backup"
    """How long the clone exists that freezes an image file."""


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    section = typed(config, FileConfig, "config.source")
    path = Path(section.filename)
    # A relative path would name another image as soon as a command runs in another folder.
    if not path.is_absolute():
        raise ConfigError(f"config.source.filename: '{path}' is no absolute path")
    return FileSource(path, job.id, _freeze(section.freeze))


def _freeze(value: str | bool) -> Freeze:
    for known in FREEZES:
        if value == known or (value is False and known == "off"):
            return known
    raise ConfigError(f"config.source.freeze: {value!r} is none of {', '.join(FREEZES)}")


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for the path of an image or a block device."""
    if not argument or "\0" in argument:
        raise ConfigError("SOURCE of the type 'file' is the path of an image file or a block device")
    return {"filename": str(Path(argument).absolute())}


__all__ = ["FileSource", "backy_source", "backy_source_config"]
