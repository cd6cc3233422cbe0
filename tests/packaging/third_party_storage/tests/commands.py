"""Commands of backy in processes that have it loaded when they begin."""

from __future__ import annotations

import os
from collections.abc import Sequence

from backy.cli.main import main


def run(words: Sequence[str], printed: str) -> None:
    """Be the command `backy WORDS`, which writes to the file `printed` whatever it has to say."""
    descriptor = os.open(printed, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    main(list(words))
