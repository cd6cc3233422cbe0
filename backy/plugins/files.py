"""Event plugins that are single files in a folder, without a package. Only their owner may be able to change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from backy.errors import PluginError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def opened(path: Path) -> int:
    """Open a plugin's file and return the descriptor, which the plugin is run from.

    Raises:
        PluginError: the file or a folder above it is a link, belongs to somebody else, or can be changed by others.
        OSError: it can not be opened.
    """
    descriptor = os.open("/", os.O_PATH | os.O_DIRECTORY)
    for part in path.absolute().parts[1:]:
        # Step by step from the root, so that what was checked is what is opened, whatever is renamed meanwhile.
        last = part == path.name and _is_file(part, descriptor)
        flags = os.O_RDONLY if last else os.O_RDONLY | os.O_DIRECTORY
        try:
            following = os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
        if cause := _untrusted(os.fstat(descriptor)):
            os.close(descriptor)
            raise PluginError(f"{path} is not run, as '{part}' in its path {cause}")
    return descriptor


def _is_file(name: str, folder: int) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _untrusted(found: os.stat_result) -> str | None:
    """Return why somebody else could change a file, or what lies in a folder; None if nobody can."""
    # Under sudo the caller's own files would run as root without a password.
    owners = {0} if "SUDO_UID" in os.environ else {0, os.geteuid()}
    if found.st_uid not in owners:
        return "belongs to somebody else"
    # In a sticky folder, such as /tmp, others can make files but not rename what is not theirs.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    return "can be changed by others" if found.st_mode & _OTHERS_WRITE and not sticky else None
