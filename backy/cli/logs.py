"""Sends log lines to standard error, or to a file that may be rotated."""

import logging.handlers
import os
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from backy.system.links import open_followed
from backy.terminal.plain import PlainFormatter
from backy.text.phrases import TIME_FORMAT

OURS = "backy"
"""Name of the handlers that are made here; plugins and tests may add others."""


def set_up_logging(logfile: Path | None, *, verbose: bool) -> None:
    """Log to `logfile`, or to standard error if it is None. Calling it again replaces what it set up before.

    Warnings go to standard error, and messages of level INFO also to a file. With `verbose`, both get everything.

    Raises:
        OSError: `logfile` can not be opened, or is a symbolic link of somebody else.
    """
    handler: logging.Handler
    if logfile is None:
        handler, level = logging.StreamHandler(sys.stderr), logging.WARNING
        handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    else:
        # logrotate moves the file away: this handler notices, and opens it again.
        handler, level = _LogFile(logfile, encoding="utf-8"), logging.INFO
        # With the process: the commands of one repository may write to its log at the same time.
        handler.setFormatter(PlainFormatter("%(asctime)s [%(process)d] %(levelname)s %(message)s", TIME_FORMAT))
    handler.set_name(OURS)
    for former in _replace_handlers([handler], logging.DEBUG if verbose else level):
        former.close()
    for library in ("asyncio", "stevedore"):
        logging.getLogger(library).setLevel(logging.WARNING)


class _LogFile(logging.handlers.WatchedFileHandler):
    """Writes to a file that may be rotated, and follows no symbolic link of somebody else."""

    def _open(self) -> TextIOWrapper:
        # A link that another user has made would let root write to any file.
        descriptor = open_followed(Path(self.baseFilename), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)


@contextmanager
def by_a_thread() -> Iterator[None]:
    """Write log lines in a thread while the context lasts, from level INFO on."""
    # A full disk or a stopped terminal would hold up the loop of the scheduler, and its watchdog would kill it.
    handlers, level = _handlers(), logging.getLogger().level
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    entrance = logging.handlers.QueueHandler(lines)
    entrance.set_name(OURS)
    entrance.setFormatter(PlainFormatter())
    writer = logging.handlers.QueueListener(lines, *handlers)
    _replace_handlers([entrance], min(level, logging.INFO))
    writer.start()
    try:
        yield
    finally:
        # Writes what is queued still, so that the last lines before the end are not lost.
        writer.stop()
        _replace_handlers(handlers, level)


def logs_to_file() -> bool:
    """Return whether log lines go to a file, and so not to standard error."""
    return any(isinstance(handler, logging.FileHandler) for handler in _handlers())


def _replace_handlers(handlers: list[logging.Handler], level: int) -> list[logging.Handler]:
    """Let these handlers write what has this level at least; return those that wrote before."""
    # Plugins log under names of their own, so handlers belong to the root of all loggers.
    root, former = logging.getLogger(), _handlers()
    for one in former:
        root.removeHandler(one)
    for one in handlers:
        root.addHandler(one)
    root.setLevel(level)
    return former


def _handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if handler.get_name() == OURS]
