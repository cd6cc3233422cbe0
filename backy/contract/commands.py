"""What a hook plugin adds to the console of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConsoleCommand:
    """A command that a plugin adds to the scheduler's console and to `backy client`."""

    name: str
    """One word. A command of backy that has the same name wins."""
    help: str
    """One sentence for the list of commands."""
    run: Callable[[Sequence[str]], str]
    """Called in a process of its own with the words after the name. Returns the text to show, or raises a
    BackyError to show."""
    changes: bool = False
    """Whether the command changes anything. Such commands can be switched off together."""
