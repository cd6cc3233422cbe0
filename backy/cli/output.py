"""Keeps standard output for the data of commands: whatever else writes there reaches standard error.

`main` moves standard output to a private descriptor and lets descriptor 1 lead to standard error, so that programs and
libraries that a plugin uses can not write between the bytes of an image. While a command of backy runs, `print` leads
there as well. `echo` and `descriptor` are the way to standard output.
"""

import fcntl
import functools
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from typing import Any, Final, TextIO, TypeVar, cast

import click

from backy.errors import TargetError
from backy.terminal.plain import painted, printable

Value = TypeVar("Value")
STANDARD_OUTPUT: Final = 1
STANDARD_ERROR: Final = 2
_DATA = f"{__name__}.data"
"""The name below which a running command finds the stream for its data."""
TAKER: Final = "taker"
"""The name of what takes answers in place of `print_json`, which prints them."""


def separate() -> None:
    """Move standard output to a private descriptor, which `sys.stdout` uses from now on, and point 1 at 2."""
    if sys.stderr is None:
        # Closed by `2>&-`: the next file to be opened, a chunk perhaps, would get its number and the messages.
        null = os.open(os.devnull, os.O_WRONLY)
        if null != STANDARD_ERROR:  # the lowest number that is free
            os.dup2(null, STANDARD_ERROR)
            os.close(null)
        os.set_inheritable(STANDARD_ERROR, True)
        sys.stderr = os.fdopen(STANDARD_ERROR, "w", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # `descriptor` tells of it
    # Above the three standard descriptors, and closed in children: they have no data to write.
    private = fcntl.fcntl(sys.stdout.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
    sys.stdout = os.fdopen(private, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
    os.dup2(STANDARD_ERROR, STANDARD_OUTPUT)


def close() -> None:
    """Close what `separate` opened. `print` writes to standard error from now on."""
    # What plugins print while the interpreter ends is no data either.
    data, sys.stdout = sys.stdout, sys.stderr
    # Flushed before: an error would have been told as that of the command.
    with suppress(OSError):
        data.close()


def discard() -> None:
    """Let standard output lead nowhere: it can not be written, or its reader must not wait for this process."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream().fileno(), inheritable=False)
    os.close(null)


def kept_apart(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callback of backy while which `print` writes to standard error, and `echo` to standard output."""

    # The whole command, not only calls of plugins: their threads and destructors print when they want to.
    @functools.wraps(callback)
    def run(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  # as click calls it
        # Kept in the context, which ends with the command.
        click.get_current_context().meta[_DATA] = sys.stdout
        with redirect_stdout(sys.stderr):
            return callback(*arguments, **options)

    return run


def stream() -> TextIO:
    """Return the text stream on standard output; one that leads nowhere if that is closed."""
    context = click.get_current_context(silent=True)
    return cast(TextIO, sys.stdout if context is None else context.meta.get(_DATA, sys.stdout))


def echo(text: object, *, lines: bool = False) -> None:
    """Write a line of text, or several `lines`, to standard output.

    Characters that could control a terminal are written out. Threads use what `echoing` returns.
    """
    echoing(lines=lines)(text)


def echoing(*, lines: bool = False) -> Callable[[object], None]:
    """Return a function that writes as `echo` does, from any thread."""
    # Only the thread of the command has a context to find the stream in.
    data = stream()

    def write(text: object) -> None:
        click.echo(painted(printable(str(text), lines=lines), data), file=data)

    return write


def descriptor() -> int:
    """Return the descriptor of standard output; raise TargetError if that is closed."""
    if sys.__stdout__ is None:
        raise TargetError("standard output is closed")
    # Not simply 1: that leads to standard error.
    return stream().fileno()


def width() -> int | None:
    """Return how many columns a table on standard output may take; None if that is no terminal."""
    if (wanted := os.environ.get("COLUMNS", "")).isdecimal() and int(wanted):
        return int(wanted)
    data = stream()
    # Some terminals say that they have none.
    return (data.isatty() and os.get_terminal_size(data.fileno()).columns) or None


def answered(content: object) -> bool:
    """Print `content` as JSON if '--json' was given, and return whether it was."""
    if kept("json", default=False):
        kept(TAKER, print_json)(content)
    return kept("json", default=False)


def answer(content: object, *texts: object) -> None:
    """Print `content` as JSON if '--json' was given, and otherwise each of `texts` in a line."""
    if not answered(content):
        for text in texts:
            echo(text)


def keep(name: str, value: object) -> None:
    """Keep a value, such as that of an option that all commands have, while the command runs."""
    click.get_current_context().meta[f"backy.{name}"] = value


def kept(name: str, default: Value) -> Value:
    """Return the value that is kept under this name, or `default`."""
    return cast(Value, click.get_current_context().meta.get(f"backy.{name}", default))


def chosen(found: object, *names: str) -> dict[str, Any]:
    """Return some attributes by their names, for `answer`."""
    return {name: getattr(found, name) for name in names}


def print_json(content: object) -> None:
    """Print `content`, of types that msgspec knows, as indented JSON on standard output."""
    # Imported late: a command that prints a table does not need it.
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
    # JSON has a way of its own to write out what is not printable, which is in texts only.
    lines = [line if line.isprintable() else _escaped(line) for line in text.split("\n")]
    click.echo("\n".join(lines), file=stream())


def _escaped(line: str) -> str:
    import json

    return "".join([one if one.isprintable() else json.dumps(one)[1:-1] for one in line])
