"""Mounts: checks the mountpoint, and answers the kernel until the end of the mount."""

import logging
import logging.handlers
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from backy.errors import BackyError, TargetError
from backy.mount.active import SUBTYPE, mounts
from backy.mount.open_images import ChunkCache
from backy.mount.tree import Forest, Single, Tree
from backy.terminal.plain import PlainFormatter
from backy.text.phrases import counted

log = logging.getLogger(__name__)
_ENDED_BY_SIGNAL = 8
"""The value that fuse_main (fuse.h) returns when a signal ended its loop."""
_SYSTEM_LOG = Path("/dev/log")


def serve(
    tree: Tree | Forest | Single,
    mountpoint: Path,
    *,
    cache: int,
    foreground: bool,
    began: Callable[[], None] | None = None,
) -> None:
    """Mount `tree` and answer the kernel until the end of the mount. In the background, return at once.

    `began` is called at the kernel's first request. It must not use the mount itself.

    Raises:
        TargetError: `mountpoint` is no folder, or has a mount of backy already.
        BackyError: FUSE is missing or does not mount, or a single image can not be opened.
    """
    mountpoint = mountpoint.resolve()
    _check(mountpoint)
    # The import loads libfuse, which may be missing.
    try:
        from backy.mount.operations import OPTIONS, FileSystem, Operations
    except (OSError, AttributeError) as error:
        raise BackyError(f"there is no libfuse 3: {error}; Debian has it in the package 'fuse3'") from error
    operations = Operations(tree, ChunkCache(cache), mountpoint, began)
    if not foreground:
        _log_to_system()
    # libfuse ends the mount on SIGTERM only if nobody else handles it.
    handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with operations.held(tree.file) if isinstance(tree, Single) else nullcontext():
            FileSystem(
                operations,
                str(mountpoint),
                foreground=foreground,
                ro=True,
                fsname=SUBTYPE,
                subtype=SUBTYPE,
                default_permissions=True,
                # Images never change, so the kernel may keep their pages from one open to the next.
                kernel_cache=True,
                **OPTIONS,
            )
    except RuntimeError as error:
        if error.args == (_ENDED_BY_SIGNAL,):
            return
        raise BackyError(f"{mountpoint}: FUSE does not mount (libfuse says why, its code is {error})") from error
    finally:
        signal.signal(signal.SIGTERM, handler)
        # Possible after a lazy unmount or a signal; their readers get errors from now on.
        if operations.open_files:
            log.warning(
                "%s was unmounted while %s open", mountpoint, counted(operations.open_files, "file was", "files were")
            )


def _check(mountpoint: Path) -> None:
    if any(mount.path == mountpoint for mount in mounts()):
        raise TargetError(f"{mountpoint} has a mount of backy already; 'backy unmount {mountpoint}' ends it")
    if not mountpoint.is_dir():
        raise TargetError(f"{mountpoint} is no folder; make it first")


def _log_to_system() -> None:
    """Send warnings to the system's log too, because nobody sees the output of a program in the background."""
    if not _SYSTEM_LOG.exists():
        return
    handler = logging.handlers.SysLogHandler(str(_SYSTEM_LOG))
    handler.setFormatter(PlainFormatter("backy[%(process)d]: %(message)s"))
    handler.setLevel(logging.WARNING)
    logging.getLogger().addHandler(handler)
