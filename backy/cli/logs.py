"""Where log lines go: warnings to standard error, or everything of note to a file that may be rotated."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OURS = "backy"
"""The name of the handler that `set_up_logging` made, among those that others may have added."""


def set_up_logging(logfile: Path | None, *, verbose: bool) -> None:
    """Log to `logfile`, which is opened again when it was moved away; without one, to standard error.

    Plugins log under names of their own, so the handler belongs to the root of all loggers.
    """
    handler: logging.Handler
    if logfile is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        level = logging.WARNING
    else:
        handler = logging.handlers.WatchedFileHandler(logfile, encoding="utf-8")
        handler.setFormatter(
            logging.Formatter("%(asctime)s [%(process)d] %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        )
        level = logging.INFO
    handler.set_name(OURS)
    root = logging.getLogger()
    for other in _handlers():
        root.removeHandler(other)
        other.close()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else level)


@contextmanager
def by_a_thread() -> Iterator[None]:
    """Let a thread write all that is logged, from `INFO` on, so that nobody has to wait for a disk or a terminal."""
    root = logging.getLogger()
    handlers = _handlers()
    lines: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    entrance = logging.handlers.QueueHandler(lines)
    entrance.set_name(OURS)
    writer = logging.handlers.QueueListener(lines, *handlers)
    for handler in handlers:
        root.removeHandler(handler)
    root.addHandler(entrance)
    root.setLevel(min(root.level, logging.INFO))
    writer.start()
    try:
        yield
    finally:
        writer.stop()
        root.removeHandler(entrance)
        for handler in handlers:
            root.addHandler(handler)


def is_verbose() -> bool:
    """Tell whether everything is logged."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def logs_to_file() -> bool:
    """Tell whether log lines go to a file, where nobody sees them at once."""
    return any(isinstance(handler, logging.FileHandler) for handler in _handlers())


def _handlers() -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if handler.get_name() == OURS]
