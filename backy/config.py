"""Typed configuration: what users write, checked with the path of the key that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from backy.errors import ConfigError, RepositoryError
from backy.revision import FORMAT

Section = TypeVar("Section", bound=msgspec.Struct)
NOT_UPGRADED = "this version can not read it yet; restore it with the backy that made it"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class JobConfig(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file `config` of a repository."""

    format: int
    """Version of the repository's layout."""
    id: str | None = None
    """What names the repository wherever it is moved to; made by `init`, the directory's name where it is missing."""
    source: dict[str, Any]
    """What is backed up: `type` names the source, the other keys are the source's own."""
    storage: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "chunked"})
    """How images are kept: `type` names the storage, the other keys are its own. A name alone stands for its type."""
    verifier: dict[str, Any] | None = None
    """How fresh revisions are checked; None leaves the choice to the source."""


def typed(config: object, section: type[Section], path: str) -> Section:
    """Turn a plain mapping into `section`.

    Raises:
        ConfigError: a key is unknown, missing or of the wrong type; the text has its path, which begins with `path`.
    """
    try:
        return msgspec.convert(config, section)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        a_key, _, where = where.rpartition("$")
        message = f"{'a key is wrong, ' if a_key else ''}{message[:1].lower()}{message[1:]}"
        raise ConfigError(f"{path}{where.rstrip('`')}: {message}") from error


def plugin_type(config: dict[str, Any], path: str) -> str:
    """Return the `type` of a section, which names the plugin.

    Raises:
        ConfigError: it has none.
    """
    name = config.get("type")
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{path}.type: missing; it names the plugin, as in 'type: file'")
    return name


def load_job(path: Path) -> JobConfig:
    """Read a repository's `config`.

    Raises:
        RepositoryError: it belongs to the 2.x line or to a newer version.
        ConfigError: it is not YAML or a key is wrong.
    """
    content = load_yaml(path)
    if isinstance(content, dict):
        version = content.get("format")
        if version is None and content.keys() & {"type", "source", "source-type"}:
            raise RepositoryError(f"{path.parent} is a repository of backy 2: {NOT_UPGRADED}")
        if isinstance(version, int) and version != FORMAT:
            raise RepositoryError(f"{path} has format {version}; this version of backy reads {FORMAT}")
        content |= {key: {"type": content[key]} for key in ("storage", "verifier") if isinstance(content.get(key), str)}
    job = typed(content, JobConfig, "config")
    plugin_type(job.source, "config.source")
    plugin_type(job.storage, "config.storage")
    if job.verifier is not None:
        plugin_type(job.verifier, "config.verifier")
    return job


def load_yaml(path: Path) -> object:
    """Read one YAML document by the safe loader.

    Raises:
        ConfigError: it is not YAML; the text names line and column.
    """
    loader = None
    try:
        loader = _LOADER(path.read_bytes())
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError) as error:  # the latter for 2026-02-30: it looks like a date, and is none
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    finally:
        if loader is not None:
            loader.dispose()


def dump_job(job: JobConfig) -> bytes:
    """Return the content of `config`."""
    content = {key: value for key, value in msgspec.to_builtins(job).items() if value is not None}
    text: str = yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text.encode()
