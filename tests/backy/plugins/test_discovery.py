from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from backy.plugins.discovery import ELSEWHERE, Kind, advertised, contenders, unreadable


def test_the_cores_own_plugins_are_advertised() -> None:
    assert [plugin.origin.split()[0] for plugin in advertised(Kind.STORAGE)["chunked"]] == ["backy-storages-chunked"]
    assert "full" in advertised(Kind.VERIFIER)
    assert "init" in advertised(Kind.COMMAND)


def test_listing_imports_nothing(distribution: Callable[..., str]) -> None:
    module = distribution("acme", {"backy.sources": ["tape"]}, "raise RuntimeError")

    (plugin,) = advertised(Kind.SOURCE)["tape"]

    assert str(plugin) == "source 'tape' of acme 1.0"
    assert module not in sys.modules


def test_a_name_can_be_claimed_twice(distribution: Callable[..., str]) -> None:
    distribution("zeta", {"backy.sources": ["tape"]})
    distribution("acme", {"backy.sources": ["tape"]})

    assert [plugin.distribution for plugin in contenders(advertised(Kind.SOURCE)["tape"])] == ["acme", "zeta"]


@pytest.mark.parametrize("value", ["tape", "acme-tapes", "Acme_Tapes", " other , tape "])
def test_a_plugin_is_switched_off_by_its_name_or_distribution(
    value: str, distribution: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("Acme.Tapes", {"backy.sources": ["tape"]})
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", value)

    (plugin,) = advertised(Kind.SOURCE)["tape"]

    assert plugin.switch == "BACKY_DISABLED_PLUGINS"
    assert contenders([plugin]) == []


@pytest.mark.parametrize(("value", "switch"), [("tape", None), ("file", "BACKY_PLUGINS"), ("", "BACKY_PLUGINS")])
def test_backy_plugins_is_the_exact_list(
    value: str, switch: str | None, distribution: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]})
    monkeypatch.setenv("BACKY_PLUGINS", value)

    assert advertised(Kind.SOURCE)["tape"][0].switch == switch


def test_the_cores_own_plugins_are_never_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKY_PLUGINS", "")
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "backy,chunked,full,init")

    assert len(contenders(advertised(Kind.STORAGE)["chunked"])) == 1
    assert len(contenders(advertised(Kind.VERIFIER)["full"])) == 1
    assert len(contenders(advertised(Kind.COMMAND)["init"])) == 1


@pytest.mark.parametrize(("kind", "name"), [(Kind.COMMAND, "init"), (Kind.VERIFIER, "full"), *ELSEWHERE])
def test_nobody_takes_the_place_of_a_plugin_of_ours(kind: Kind, name: str, distribution: Callable[..., str]) -> None:
    distribution("acme", {kind.group: [name]})

    claims = advertised(kind)[name]

    assert len(claims) == 2
    assert [plugin.distribution for plugin in contenders(claims)] == [ELSEWHERE.get((kind, name), "backy")]


def test_a_distribution_of_ours_does_not_take_the_name_of_another(distribution: Callable[..., str]) -> None:
    """Each has its own names alone: what is called like one of ours may be somebody else's."""
    distribution("backy-storages-cow", {"backy.sources": ["tape"]})
    distribution("acme", {"backy.sources": ["tape"]})

    assert len(contenders(advertised(Kind.SOURCE)["tape"])) == 2


def test_one_of_ours_that_is_switched_off_leaves_its_name(
    distribution: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.storages": ["cow"]})
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "backy-storages-cow")

    assert [plugin.distribution for plugin in contenders(advertised(Kind.STORAGE)["cow"])] == ["acme"]


@pytest.mark.filterwarnings("ignore:Implicit None on return values:DeprecationWarning")  # of Python 3.12
@pytest.mark.parametrize("damage", ["METADATA is missing", "METADATA", "entry_points.txt", "a folder"])
def test_a_distribution_that_can_not_be_read_is_named_and_left_out(
    damage: str, distribution: Callable[..., str], tmp_path: Path
) -> None:
    distribution("acme", {"backy.sources": ["tape"]})
    distribution("zeta", {"backy.sources": ["reel"]})
    folder = tmp_path / "site-packages/acme-1.0.dist-info"
    if damage == "METADATA is missing":
        (folder / "METADATA").unlink()
    elif damage == "a folder":
        (folder / "entry_points.txt").unlink()
        (folder / "entry_points.txt").mkdir()
    else:
        (folder / damage).write_bytes(b"Name: \xff\xfe\n")
    importlib.invalidate_caches()

    assert "tape" not in advertised(Kind.SOURCE)
    assert "reel" in advertised(Kind.SOURCE)
    (line,) = unreadable()
    assert line.startswith(f"the distribution {folder} can not be read: ")


def test_metadata_is_read_once_until_it_changes(
    distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]})
    path = tmp_path / "site-packages/acme-1.0.dist-info/entry_points.txt"
    reads = []
    read_text = PathDistribution.read_text
    monkeypatch.setattr(
        PathDistribution, "read_text", lambda self, name: reads.append(self._path) or read_text(self, name)
    )
    assert "tape" in advertised(Kind.SOURCE)
    assert path.parent in reads
    reads.clear()

    assert "tape" in advertised(Kind.SOURCE)
    assert reads == []

    path.write_text(path.read_text().replace("tape", "reel"))
    assert "reel" in advertised(Kind.SOURCE)
    assert "tape" not in advertised(Kind.SOURCE)
    assert set(reads) == {path.parent}


def test_of_a_distribution_that_is_there_twice_the_first_counts(
    distribution: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, version="1.0")
    shutil.copytree(tmp_path / "site-packages", tmp_path / "other")
    monkeypatch.syspath_prepend(tmp_path / "other")

    assert len(advertised(Kind.SOURCE)["tape"]) == 1
