"""Event plugins that are single files in a folder, without a package. Only their owner may be able to change them."""

import os
import stat
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType


class PluginFile(EntryPoint):
    """A plugin that is a single file; its `value` is the path."""

    def load(self) -> ModuleType:
        """Run the file and return it as a module. Raise the same errors as `opened`."""
        # What was checked is what is run, even if the file is replaced meanwhile.
        with os.fdopen(opened(Path(self.value)), "rb") as stream:
            code = compile(stream.read(), self.value, "exec", dont_inherit=True)
        module = ModuleType(self.name)
        module.__file__ = self.value
        exec(code, vars(module))  # noqa: S102  # running it is what it is there for
        return module


def opened(path: Path) -> int:
    """Open a plugin's file and return the descriptor, which the plugin is run from.

    Raises:
        PermissionError: the file or a folder above it is a link, belongs to somebody else, or can be changed by others.
        OSError: it can not be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # The folders after the file: who could have put another one in its place can still be seen.
    for place, found in [(path, os.fstat(descriptor)), *((folder, folder.lstat()) for folder in path.parents)]:
        if cause := _untrusted(found):
            os.close(descriptor)
            raise PermissionError(f"{path} is not run, as {place} {cause}")
    return descriptor


def _untrusted(found: os.stat_result) -> str | None:
    """Return why somebody else could change a file, or what lies in a folder; None if nobody can."""
    # Under sudo the caller's own files would run as root without a password.
    owners = {0} if "SUDO_UID" in os.environ else {0, os.geteuid()}
    if found.st_uid not in owners:
        return "belongs to somebody else"
    # In a sticky folder, such as /tmp, others can make files but not rename what is not theirs.
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    # A link can be changed by others as well, as its mode says.
    return "can be changed by others" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky else None
