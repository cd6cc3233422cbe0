from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SECRETIVE = """
from backy.api import ConfigError
from backy.hookspecs import hookimpl
@hookimpl
def backy_source(config): raise ConfigError("no")
@hookimpl
def backy_source_config(argument): return {"password": "hunter2"}
"""


def test_loading_and_calls_are_traced_without_values(
    distribution: Callable[..., str], backy: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = distribution("acme", {"backy.sources": ["tape"]}, SECRETIVE)
    monkeypatch.setenv("BACKY_TRACE_PLUGINS", "1")

    result = backy("-b", tmp_path / "vm", "init", "tape", "a-secret")

    assert result.err.splitlines() == [
        f"plugin trace: source 'tape' of acme 1.0: loaded from '{module}'",
        "plugin trace: source 'tape' of acme 1.0: backy_source_config(argument)",
        "plugin trace: source 'tape' of acme 1.0: backy_source_config returned dict",
        f"plugin trace: source 'tape' of acme 1.0: loaded from '{module}'",
        "plugin trace: source 'tape' of acme 1.0: backy_source(config, job)",
        "plugin trace: source 'tape' of acme 1.0: backy_source raised ConfigError",
        "Error: no",
    ]


def test_nothing_is_traced_unless_asked_for(backy: Callable, tmp_path: Path, image: Path) -> None:
    assert backy("-b", tmp_path / "vm", "init", "file", image).err == ""
