"""A disk that can not read a file at the moment."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest


def fail_to_read(patch: pytest.MonkeyPatch, name: str) -> None:
    """Have the disk fail where a file is opened whose path ends with `name`."""
    opened = os.open

    def fail(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *arguments, **keywords)

    patch.setattr(os, "open", fail)
