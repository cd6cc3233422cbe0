"""The measurement of commands on a long history, with a short one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_command_is_measured_and_those_with_a_goal_say_so(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.history", "--revisions", "20", "--work", tmp_path / "work"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for command, goal in {"backup hourly": "under 5 s", "purge": "under 5 s", "expire": "", "status": ""}.items():
        assert f"| `{command}` | {goal} | " in ended.stdout
