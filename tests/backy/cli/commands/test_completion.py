"""The shells themselves complete words by what `backy completion` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BASH = """
source {script}
COMP_WORDS=(backy sc) COMP_CWORD=1
_backy_completion backy sc backy
echo "${{COMPREPLY[@]}}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
source {script}
(( $+functions[_backy_completion] )) && env COMP_WORDS='backy sc' COMP_CWORD=1 _BACKY_COMPLETE=zsh_complete backy
"""
FISH = """
source {script}
complete -C 'backy sc'
"""


@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_shell_completes_a_command(backy, tmp_path: Path, shell: str, script: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED: completion by {shell}, which is not installed")
    printed = backy("completion", shell)
    assert (printed.code, printed.err) == (0, "")
    (tmp_path / "script").write_text(printed.out)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}

    done = subprocess.run(
        [shell, "-c", script.format(script=tmp_path / "script")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )

    assert "scrub" in done.stdout, done.stderr
    assert "backup" not in done.stdout


def test_another_shell_is_refused(backy) -> None:
    refused = backy("completion", "tcsh")

    assert refused.code == 2
    assert "SHELL: write bash or zsh or fish" in refused.err
