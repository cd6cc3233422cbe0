"""A plugin that can not be used, and how its exceptions are told in one line."""

from __future__ import annotations

from backy.errors import PluginError
from backy.plugins.discovery import Plugin


class BrokenPluginError(PluginError):
    """A plugin can not be imported, breaks the contract, or failed where nobody expects it to."""

    def __init__(self, plugin: Plugin, cause: str) -> None:
        super().__init__(f"{plugin} is broken: {cause}")
        self.cause = cause


def described(error: BaseException) -> str:
    """Return type and text of an unexpected exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
