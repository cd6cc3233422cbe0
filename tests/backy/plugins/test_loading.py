from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.errors import ConfigError, PluginError
from backy.plugins import loading
from backy.plugins.discovery import Kind
from backy.plugins.loading import call, chosen, load

HEAD = "from backy.api import ConfigError\nfrom backy.hookspecs import hookimpl\n"
CONFIG = "@hookimpl\ndef backy_source_config(argument): return {}\n"


def source(body: str) -> str:
    """Return the code of a source whose factories have `body`."""
    return f"{HEAD}@hookimpl\ndef backy_source(config): {body}\n{CONFIG}"


def test_one_plugin_answers_alone() -> None:
    manager = load(Kind.STORAGE, "chunked")

    assert [name for name, _ in manager.list_name_plugin()] == ["chunked"]


def test_only_the_chosen_plugin_is_imported(distribution: Callable[..., str]) -> None:
    module = distribution("acme", {"backy.sources": ["tape"]}, source("return 'tape'"))

    load(Kind.SOURCE, "file")

    assert module not in sys.modules


def test_an_unknown_name_is_answered_with_what_there_is_and_imports_nothing(
    distribution: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = [
        distribution("acme", {"backy.sources": ["rbd"]}, source("return 'rbd'")),
        distribution("zeta", {"backy.sources": ["tape"]}, "import os; os._exit(7)"),
        distribution("off", {"backy.sources": ["off"]}),
    ]
    monkeypatch.setenv(
        "BACKY_DISABLED_PLUGINS",
        "off, backy-sources-ceph, backy-sources-flyingcircus, backy-sources-lvm, backy-sources-qemu",
    )

    with pytest.raises(PluginError) as unknown:
        load(Kind.SOURCE, "rdb")

    assert str(unknown.value) == (
        "no source 'rdb'; did you mean 'rbd'? installed: file, rbd, tape; "
        "switched off: ceph-rbd, flyingcircus, lvm, nbd, off, qemu; 'backy plugins --check' tells which are broken"
    )
    assert not sys.modules.keys() & set(modules)


@pytest.mark.parametrize("variable", ["BACKY_PLUGINS", "BACKY_DISABLED_PLUGINS"])
def test_a_plugin_that_is_switched_off_says_by_what(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "file" if variable == "BACKY_DISABLED_PLUGINS" else "other")

    with pytest.raises(PluginError, match=f"^source 'file' is switched off by {variable}$"):
        load(Kind.SOURCE, "file")


def test_without_any_source_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "advertised", lambda _kind: {})

    with pytest.raises(PluginError, match=r"no storage 'cow'; install backy-storages-cow, which has it$"):
        call(Kind.STORAGE, "cow", "backy_storage")
    with pytest.raises(PluginError, match=r"no source 'x': no source is installed; install backy-sources-file for"):
        chosen(Kind.SOURCE, "x")
    with pytest.raises(PluginError, match=r"no storage 'x': no storage is installed$"):
        chosen(Kind.STORAGE, "x")


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("return None", "hook backy_source returned None, which has no 'snapshot'"),
        ("1 / 0", "hook backy_source failed with ZeroDivision"),
    ],
)
def test_a_factory_that_fails_is_the_plugins_fault(body: str, cause: str, distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, source(body))

    with pytest.raises(PluginError, match=re.escape(f"source 'tape' of acme 1.0 is broken: {cause}")):
        call(Kind.SOURCE, "tape", "backy_source", config={}, job=None)


def test_a_wrong_configuration_is_its_users_fault(distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, source("raise ConfigError('config.source.drive: missing')"))

    with pytest.raises(ConfigError, match=r"^config\.source\.drive: missing$"):
        call(Kind.SOURCE, "tape", "backy_source", config={}, job=None)


def test_the_entry_point_that_was_chosen_is_loaded_whatever_caches_say(
    distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    distribution("acme", {"backy.sources": ["tape"]}, source("return 'old'"))
    assert load(Kind.SOURCE, "tape").hook.backy_source(config={}, job=None) == "old"
    (tmp_path / "site-packages/acme-1.0.dist-info").rename(tmp_path / "gone")
    distribution("acme", {"backy.sources": ["tape"]}, source("return 'new'"))

    assert load(Kind.SOURCE, "tape").hook.backy_source(config={}, job=None) == "new"
    assert not cache.exists()


def test_an_interruption_while_importing_ends_the_command(distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "raise KeyboardInterrupt")

    with pytest.raises(KeyboardInterrupt):
        chosen(Kind.SOURCE, "tape").load()


def test_an_assertion_that_fails_while_importing_is_the_plugins_fault(distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "assert False, 'no drive'")

    with pytest.raises(PluginError, match=r"^source 'tape' of acme 1.0 is broken: AssertionError: no drive$"):
        load(Kind.SOURCE, "tape")
