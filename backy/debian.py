"""Finds modules of Debian's packages, which are on no package index and not in a virtual environment."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from backy.errors import BackyError

_FOLDER: Final = Path("/usr/lib/python3/dist-packages")


class MissingModuleError(BackyError):
    """A module of a Debian package can not be imported. The text says what to install."""


def debian_modules(package: str, *names: str) -> list[ModuleType]:
    """Import modules that Debian's `package` has, in their order: what one needs stands before it.

    An interpreter that finds them by itself does so. Nothing else of Debian's is importable afterwards.

    Raises:
        MissingModuleError: the package is not installed, or is made for another version of Python.
    """
    try:
        return [_imported(name) for name in names]
    except ImportError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        hint = f"install Debian's package {package}"
        if [path for name in names for path in _FOLDER.glob(f"{name}.*")]:
            hint = f"{package} is made for Debian's own Python: make backy's virtual environment by /usr/bin/python3"
        raise MissingModuleError(f"Python {version} can not import {' and '.join(names)} ({error}); {hint}") from error


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    # files with the suffix of another version are not found
    sys.path.append(str(_FOLDER))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(_FOLDER))
