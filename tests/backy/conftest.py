"""Distributions that are not installed but look as if they were, for tests of what plugins may do."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from backy.mount.open_images import ChunkCache

NUMBERS = itertools.count()


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Install a distribution of one module: `distribution(name, {group: [plugin, ...]}, code)`.

    Entry points name the module, or what follows a colon in the plugin's name. Returns the module's name.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules = []

    def install(name: str, groups: dict[str, list[str]], code: str = "", version: str = "1.0") -> str:
        module = f"third_party_{next(NUMBERS)}"
        modules.append(module)
        (site / f"{module}.py").write_text(dedent(code))
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for group, plugins in groups.items():
            lines.append(f"[{group}]")
            for plugin, _, attribute in (entry.partition(":") for entry in plugins):
                lines.append(f"{plugin} = {module}{':' if attribute else ''}{attribute}")
        (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def cache() -> Iterator[ChunkCache]:
    """A cache that holds everything."""
    made = ChunkCache(2**30)
    yield made
    made.stop()
