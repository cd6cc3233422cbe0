"""Installs `README` and `restore.py` in every chunked repository, which can be restored without backy by them.

`restore.py` is data here: it is copied into repositories, runs on CPython 3.8 and later, and imports nothing of backy.
"""

from __future__ import annotations

from pathlib import Path

from backy.durable import write_if_different

# Readable for all: nothing in these files comes from a guest.
MODES = {"README": 0o444, "restore.py": 0o555}
"""The files and their modes."""


def install(directory: Path) -> None:
    """Write the files into a repository's directory, unless they are there with this version's content."""
    for name, mode in MODES.items():
        write_if_different(directory / name, Path(__file__).with_name(name).read_bytes(), mode)
