"""A test that hangs ends with a traceback, so that CI tells where and not only that it took too long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_each_test_has_a_limit(pytestconfig: pytest.Config) -> None:
    assert float(pytestconfig.getini("timeout")) == 600
    assert pytestconfig.getini("timeout_method") == "thread"


def test_a_hanging_test_tells_where(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    module = "import threading\n\ndef test_that_hangs():\n    threading.Event().wait()\n"
    (tmp_path / "test_hanging.py").write_text(module)
    words = ["-c", str(pytestconfig.inipath), "--timeout", "1", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *words, str(tmp_path / "test_hanging.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    assert "in test_that_hangs" in done.stdout + done.stderr
