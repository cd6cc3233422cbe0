"""The pages become HTML and man pages without a warning: all links lead somewhere, and the contents have all pages."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from backy.plugins.discovery import Kind, advertised

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
        assert relative.parts[0] == "examples" or (target / relative.with_suffix(".html")).exists()


def test_man_pages(built) -> None:
    target = built("man")
    page = target / "backy.1"
    shown = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    commands = [
        name
        for name, claims in advertised(Kind.COMMAND).items()
        if any(claim.distribution.startswith("backy") for claim in claims)
    ]
    headings = set(re.findall(r"^BACKY ([A-Z-]+)$", shown.stdout, re.MULTILINE))
    assert {name.upper() for name in commands} == headings
