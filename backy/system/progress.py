"""The form in which long work reports its progress."""

from collections.abc import Callable
from typing import Final

from backy.api import Progress

HEARTBEAT: Final = "BACKY_HEARTBEAT"
"""Environment variable with the descriptor of a pipe that gets a line, once a second at most, while work goes on.

The line is a JSON object with the `step`, and with the bytes of it that are `done` and in `total`.
"""

Steps = Callable[[str, int], Progress]
"""Called when a step begins, with its name and total bytes. Returns the function to call with the bytes done."""


def quiet(step: str, total: int) -> Progress:
    """Report no progress."""
    # Used where nobody watches: by tests, and by plugins that show none.
    return lambda _length: None
