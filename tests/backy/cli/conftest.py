"""The command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a process of its own, which sees what `distribution` installed."""

    def start(*arguments: object, wrapper: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        command = [*wrapper, sys.executable, "-m", "backy_main", *map(str, arguments)]
        site = tmp_path / "site-packages"
        site.mkdir(exist_ok=True)
        (site / "backy_main.py").write_text("from backy.cli.main import main\nmain()\n")
        environment = os.environ | {"PYTHONPATH": str(site), "HOME": "/nonexistent"}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(command, env=environment, **options)

    return start
