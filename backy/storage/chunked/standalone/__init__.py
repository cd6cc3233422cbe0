"""What every chunked repository carries so that it can be restored without backy: `README` and `restore.py`.

`restore.py` is data here: it is copied into repositories, runs on any CPython from 3.8 on and imports nothing of backy.
"""

from __future__ import annotations

from pathlib import Path

from backy.durable import write_if_different

MODES = {"README": 0o444, "restore.py": 0o555}
"""The files and their modes: there is nothing of a guest in them, whoever may enter the directory may read them."""


def install(directory: Path) -> None:
    """Write the files into a repository's directory, unless those of this version are there already."""
    for name, mode in MODES.items():
        write_if_different(directory / name, Path(__file__).with_name(name).read_bytes(), mode)
