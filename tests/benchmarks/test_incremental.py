import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: file systems can be mounted by root only")
def test_times_stand_beside_each_other_before_and_after_fragmentation(tmp_path: Path):
    options = ["--sizes", "64,128", "--runs", "1", "--extents", "400", "--kinds", "xfs", "--work", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.incremental", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    heading, _, *rows = ended.stdout.splitlines()
    assert heading == "| file system | 4 MiB changed in | extents | 64 MiB | 128 MiB | ratio |"
    assert [row.split(" | ")[1] for row in rows] == ["one place", "64 places", "one place", "64 places"]
    assert "chunks" in ended.stderr
    assert not (tmp_path / "xfs" / "root").is_mount()
