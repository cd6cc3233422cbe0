"""Texts that control no terminal, whatever is in them: a repository, an image or a client may come from anybody."""

import logging
import os
import re
from typing import Any, TextIO

_ALARMING = re.compile(r"\b(ERROR|Error|CRITICAL|WARNING|UNKNOWN|TOO OLD|late|failed|distrusted|wrong|torn|damaged)\b")


def painted(text: str, stream: TextIO) -> str:
    """Return a text in which words that alarm are red, if `stream` leads to a terminal and nobody objects."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or not stream.isatty():
        return text
    return _ALARMING.sub("\x1b[31m\\g<0>\x1b[0m", text)


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text in which each character that is not printable is written out; `lines` keeps the ends of lines."""
    if lines:
        return "\n".join(map(printable, text.split("\n")))
    # Not only C0: C1 begins sequences as well, and marks of direction make a text look like another one.
    if text.isprintable():
        return text
    return "".join([one if one.isprintable() else ascii(one)[1:-1] for one in text])


class PlainFormatter(logging.Formatter):
    """Makes lines of a log in which only a traceback begins lines of its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # as it is called there
        """Return the message in the format of this formatter."""
        # A thread that writes the lines gets what was made here, with the traceback behind it.
        if not record.message.startswith(getattr(record, "plain", "\0")):
            record.message = record.plain = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802, ANN401  # as it is declared there
        """Return a traceback with its lines set in: the text of an error may have some that look like a log."""
        return super().formatException(ei).replace("\n", "\n  ")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with a traceback if there is one."""
        record.exc_text = None  # other formatters leave theirs there
        return printable(super().format(record), lines=True)
