"""What does not use plugins of others does not pay for the machinery that loads them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backy.backup.backup import Backup
from backy.plugins.events import Events
from backy.repository.repository import Repository

SHOW = """
import sys
from backy.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["find"], ["status"], ["plugins"]])
def test_commands_that_load_no_plugin_of_others_import_no_stevedore(words: list[str], repository: Repository) -> None:
    Backup(repository, ("daily",), Events()).run()

    command = [sys.executable, "-c", SHOW, "-b", repository.directory, *words]
    # `find` fails, as nothing is mounted.
    done = subprocess.run(command, check=False, capture_output=True, text=True)

    modules = done.stderr.split()
    assert "backy.cli.main" in modules
    assert "stevedore" not in modules
