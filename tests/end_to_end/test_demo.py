"""The demonstration that newcomers run, on a small disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo/demo"


def demonstrate(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEMO],
        env={
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": "/nonexistent",
            "TMPDIR": str(folder),
            "IMAGE_SIZE": "64M",
            "FILES_MIB": "10",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_the_demonstration_restores_both_states_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = demonstrate(tmp_path)

    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("OK: both revisions were restored")
    assert "$ backy -b vm restore -r monday monday.img\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ('[ "$3" = restore ] && [ "$5" = 0 ] && set -- -b vm restore -r monday "$6"', "not those that were backed up"),
        ('[ "$3" != restore ] || exit 1', "$ backy -b vm restore -r monday"),
    ],
    ids=["a wrong restore", "a failing restore"],
)
def test_the_demonstration_fails_if_backy_does(tmp_path: Path, script: str, complaint: str) -> None:
    program = tmp_path / "bin/backy"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n{script}\nexec {sys.prefix}/bin/backy "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "work"
    folder.mkdir()

    done = demonstrate(folder, PATH=f"{program.parent}:{sys.prefix}/bin:/usr/bin:/bin")

    assert done.returncode != 0
    assert complaint in done.stdout.splitlines()[-1]
    assert list(folder.iterdir()) == []
