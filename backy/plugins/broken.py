"""The error for a plugin that can not be used, and one-line descriptions of exceptions."""

from __future__ import annotations

from backy.errors import PluginError
from backy.plugins.discovery import Plugin


class BrokenPluginError(PluginError):
    """A plugin can not be imported, breaks the contract, or failed unexpectedly."""

    def __init__(self, plugin: Plugin, cause: str) -> None:
        super().__init__(f"{plugin} is broken: {cause}")
        self.cause = cause


def described(error: BaseException) -> str:
    """Return type and text of an unexpected exception in one line."""
    # Texts of foreign exceptions have line breaks; an error of backy is one line.
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
