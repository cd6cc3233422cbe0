"""py-consul goes on where python-consul ended and has the same module `consul`: only one of them can be installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import Cluster

HERE = Path(__file__).parent


def test_all_of_it_works_with_py_consul(tmp_path: Path, ceph: Cluster) -> None:
    """The cluster is there, so nothing is skipped in the other process, which has one of its own."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", tmp_path / "site", "py-consul>=1.6"], check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    environment |= {"PYTHONPATH": str(tmp_path / "site")}

    def python(*words: object) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(
            command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert python("-c", "import consul; print(consul.__file__)").startswith(str(tmp_path))
    ran = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/tests", HERE / "test_source.py"
    )
    assert "skipped" not in ran
