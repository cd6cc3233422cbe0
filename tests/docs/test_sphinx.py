"""The pages become HTML and man pages without a warning: all links lead somewhere, and the contents have all pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backy.plugins.discovery import Kind, advertised
from backy.scheduler.configuration.keys import Global, JobKeys

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory):
    """Build the pages by one of Sphinx's builders."""
    folder = tmp_path_factory.mktemp("docs")

    def build(builder: str) -> Path:
        command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "trees"]
        target = folder / builder
        done = subprocess.run([*command, "-b", builder, DOCS, target], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return target

    return build


def test_html_pages(built) -> None:
    target = built("html")
    for page in DOCS.rglob("*.md"):
        relative = page.relative_to(DOCS)
        assert (target / relative.with_suffix(".html")).exists()


@pytest.fixture(scope="module")
def man_page(built):
    """Read a man page as man(1) shows it."""
    folder = built("man")

    def shown(name: str) -> str:
        wide = {**os.environ, "MANWIDTH": "200"}  # cells that are too narrow for a word are no mistake
        command = ["man", "--warnings", "-l", folder / name]
        done = subprocess.run(command, env=wide, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    return shown


def test_the_man_page_of_backy_has_all_commands(man_page) -> None:
    commands = [
        name
        for name, claims in advertised(Kind.COMMAND).items()
        if any(claim.distribution.startswith("backy") for claim in claims)
    ]
    headings = set(re.findall(r"^BACKY ([A-Z-]+)$", man_page("backy.1"), re.MULTILINE))

    assert {name.upper() for name in commands} == headings


def test_the_man_page_of_the_configuration_has_all_keys(man_page) -> None:
    text = man_page("backy.conf.5")

    for section in (Global, JobKeys):
        assert [key for key in section.__struct_encode_fields__ if key not in text] == []
