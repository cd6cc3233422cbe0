"""Reads the records and the configuration of a repository of backy 2."""

import logging
from collections.abc import Container, Mapping, Sized
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from backy.api import ID_PATTERN, BackyError
from backy.durable import names_in, read_file

log = logging.getLogger(__name__)
CONFIG = "config"
LARGEST = 16 * 2**20
"""Bytes that no record and no configuration exceeds."""
FOREVER = 100_000
"""How many revisions a tag keeps that never expires."""


def counted(revisions: Sized) -> str:
    """Return how many revisions there are, in words."""
    return f"{len(revisions)} revision{'' if len(revisions) == 1 else 's'}"


class OldRevision(NamedTuple):
    """A complete revision of backy 2."""

    id: str
    timestamp: datetime
    tags: tuple[str, ...]
    trust: str
    """`trusted`, `distrusted` or `verified`."""
    chunked: bool
    """Whether it has a chunk map; else it is a raw image."""


class OldRevisions(NamedTuple):
    """What a directory has."""

    complete: list[OldRevision]
    """The oldest first."""
    incomplete: list[str]
    """Ids of what backups left that did not end."""
    unreadable: list[str]
    """Names of records that can not be read."""


def old_revisions(directory: Path) -> OldRevisions:
    """Read all records of backy 2 in a directory."""
    found = OldRevisions([], [], [])
    for name in sorted(names_in(directory)):
        if not name.endswith(".rev") or (directory / name).is_symlink():
            continue
        try:
            content = load(directory / name)
            if "duration" not in (content.get("stats") or {}):
                found.incomplete.append(name.removesuffix(".rev"))
            # else another server has it, of which an unreleased version knows
            elif not content.get("server"):
                found.complete.append(_revision(content))
        except (BackyError, OSError, KeyError, ArithmeticError, ValueError, TypeError, AttributeError) as error:
            log.debug("%s can not be read: %s", directory / name, error)
            found.unreadable.append(name)
    found.complete.sort(key=lambda one: one.timestamp)
    return found


def _revision(content: Mapping[str, Any]) -> OldRevision:
    tags = tuple(sorted({_tag(str(tag)) for tag in content.get("tags") or ()}))
    if not ID_PATTERN.fullmatch(str(content["uuid"])):
        raise ValueError(f"{content['uuid']!r} is no id")
    chunked, trust = content.get("backend_type") == "chunked", content.get("trust") or "trusted"
    return OldRevision(str(content["uuid"]), time_of(content["timestamp"]), tags, trust, chunked)


def time_of(value: object) -> datetime:
    """Return a time of backy 2, which is one of UTC unless it says otherwise; raises ValueError if it is none."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is no time")  # noqa: TRY004  # whoever reads records treats all of this alike
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _tag(tag: str) -> str:
    """Return a tag as a revision can have it now; what can be none becomes one that never expires."""
    plain = "".join(letter for letter in tag.strip() if letter.isprintable()).replace(",", "-") or "empty"
    refused = plain != tag or plain.isdecimal() or plain in {"last", "latest", "manual:"}
    return f"manual:{plain.removeprefix('manual:') or 'empty'}" if refused else tag


def load(path: Path) -> dict[str, Any]:
    """Read a file of keys and values.

    Raises:
        BackyError: it has something else.
        OSError: it can not be read.
    """
    try:
        content = yaml.safe_load(read_file(path, LARGEST, follow=True))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BackyError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BackyError(f"{path} has no keys and values")
    return content


def is_old(directory: Path) -> bool:
    """Tell whether the `config` of a directory is one of backy 2; raises as `load`."""
    content = load(directory / CONFIG)
    return "format" not in content and bool(content.keys() & {"type", "source", "source-type"})


def sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections `source` and `schedule` that a `config` of backy 2 stands for; raises BackyError if none."""
    # until 2.2 the file was the section; before, its type was beside it
    source = config["source"] if isinstance(config.get("source"), dict) else config
    source = {"type": config.get("source-type"), **source}
    kept = {key: value for key, value in source.items() if key not in {"backend", "cow"}}
    try:
        kept["type"] = source_type(kept["type"], kept)
        schedule = {tag: _scheduled(keys) for tag, keys in (config.get("schedule") or {}).items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise BackyError(f"they have an unusual form: {error}") from error
    return {"source": kept, **({"schedule": schedule} if schedule else {})}


def source_type(name: str, keys: Container[str]) -> str:
    """Return what the type of a source is called now that has these keys."""
    if name in {"ceph", "rbd", "ceph-rbd"}:
        return "flyingcircus" if "vm" in keys else "ceph-rbd"
    return name


def _scheduled(keys: Mapping[str, Any]) -> dict[str, Any]:
    interval = str(keys["interval"])
    return {"interval": f"{interval}s" if interval.isdecimal() else interval, "keep": keys["keep"] or FOREVER}
