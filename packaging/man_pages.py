"""Adds man pages to a wheel: hatchling calls this for each wheel of backy, see `.ci/wheels`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface):
    """Takes the pages from the folder that `BACKY_MAN` names, if it does."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Say where pip shall put the pages, below the prefix of the environment."""
        # making them takes backy itself with Sphinx: who installs from a checkout does without
        for page in Path(os.environ.get("BACKY_MAN", os.devnull)).glob("*.[0-9]"):
            build_data["shared_data"][str(page)] = f"share/man/man{page.suffix[1:]}/{page.name}"
