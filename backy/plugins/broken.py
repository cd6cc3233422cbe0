"""The error for a plugin that can not be used, and one-line descriptions of exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager

from backy.errors import BackyError, PluginError


class BrokenPluginError(PluginError):
    """A plugin can not be imported, breaks the contract, or failed unexpectedly."""

    def __init__(self, plugin: object, cause: str) -> None:
        super().__init__(f"{plugin} is broken: {cause}")
        self.cause = cause


class PluginSystemError(PluginError, OSError):
    """The operating system refused something that a plugin asked for: a disk is full, a device gone."""

    # An OSError as well, so that those who go on after one do so no matter who met it.


@contextmanager
def blamed(plugin: object) -> Iterator[None]:
    """Raise whatever the context raises as the fault of `plugin`, unless it is that already."""
    try:
        yield
    except (KeyboardInterrupt, BrokenPluginError):
        raise
    except BaseException as error:  # also a SystemExit, and the panic of a compiled module
        raise BrokenPluginError(plugin, described(error)) from error


def described(error: BaseException) -> str:
    """Return type and text of an unexpected exception in one line."""
    # Texts of foreign exceptions have line breaks; an error of backy is one line.
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def system_error(error: OSError) -> str:
    """Return file name and cause of an error of the operating system."""
    return ": ".join(str(part) for part in (error.filename, error.strerror or str(error)) if part)


def error_line(error: BaseException) -> str:
    """Return the line that users see of an error that ends a command."""
    if isinstance(error, BackyError):
        return str(error)
    if isinstance(error, OSError):
        return system_error(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"internal error: {described(error)}; 'backy -v' logs where"
