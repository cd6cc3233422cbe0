"""Where a scheduler is to be found: the two keys of its configuration that the commands beside it need.

To read all of a configuration of ten thousand jobs takes a second, and one that has a mistake can not be used. Neither
shall keep `backy check` from its work, so this looks no further than it has to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from backy.errors import ConfigError
from backy.scheduler.config import Global

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SECTIONS = {"global", "config"}


class Settings(NamedTuple):
    """Where a scheduler is to be found."""

    base_dir: Path
    status_file: Path


def load_settings(path: Path) -> Settings:
    """Read where the scheduler of a configuration is to be found.

    Raises:
        ConfigError: the file can not be read, or is not YAML up to there.
    """
    try:
        with path.open("rb") as stream:
            found = dict(_scalars(stream.read()))
    except OSError as error:
        raise ConfigError(f"{path} can not be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    base = Path(found["base-dir"]) if "base-dir" in found else Global().base_dir
    return Settings(base, Path(found["status-file"]) if "status-file" in found else base / "status")


def _scalars(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the keys of the section `global` whose values are plain, and look no further."""
    path: list[str | None] = []
    """The key whose value comes next, for each mapping or list that is open; None where a key comes next."""
    for event in yaml.parse(content, Loader=_LOADER):
        if isinstance(event, yaml.ScalarEvent):
            if path and path[-1] is None:
                path[-1] = event.value
                continue
            if path[:1] and path[0] in _SECTIONS and path[1:2] == path[-1:]:
                yield str(path[1]), event.value
        elif isinstance(event, yaml.CollectionStartEvent):
            path.append(None if isinstance(event, yaml.MappingStartEvent) else "")
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            path.pop()
            if len(path) == 1 and path[0] in _SECTIONS:
                return
        elif not isinstance(event, yaml.AliasEvent):
            continue
        if path and path[-1] != "":
            path[-1] = None  # that was a value
