"""Reads and writes YAML by the safe loader and dumper."""

from pathlib import Path
from typing import Any

import yaml

from backy.durable import read_file
from backy.errors import ConfigError

LONGEST = 16 * 2**20
"""Bytes that no configuration exceeds: what it has takes far more memory."""
# The classes in C take a tenth of the time. PyYAML has them only if it was built with libyaml.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load_yaml(path: Path) -> object:
    """Read one YAML document.

    Raises:
        ConfigError: the file is not YAML; the text names line and column.
        OSError: the file can not be read.
    """
    return parse_yaml(read_file(path, LONGEST), str(path))


def parse_yaml(content: bytes | str, where: str) -> object:
    """Read one YAML document.

    Raises:
        ConfigError: it is not YAML; the text begins with `where` and names line and column.
    """
    try:
        return yaml.load(content, LOADER)  # noqa: S506  # it is a safe one
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2026-02-30 looks like a date and is none.
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def dump_yaml(content: object) -> bytes:
    """Return plain values as a YAML document that keeps the order of keys."""
    text: str = yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text.encode()
