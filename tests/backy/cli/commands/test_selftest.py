from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from backy.testing.laboratory import BrokenPromiseError


def test_a_sound_machine_passes_and_nothing_is_left(backy, tmp_path: Path) -> None:
    result = backy("selftest", "--on", tmp_path, "--count", 2)

    assert (result.code, result.err) == (0, "")
    assert re.sub(r"\d+ states", "N states", result.out) == (
        "backup, forget, purge, restore: 4 revisions read back\n"
        "power loss during backup: N states, nothing lost\n"
        "failing disk during backup: 2 calls, nothing lost\n"
        "full disk during backup: 2 calls, nothing lost\n"
        "power loss during backup after a failed one: N states, nothing lost\n"
        "failing disk during backup after a failed one: 2 calls, nothing lost\n"
        "full disk during backup after a failed one: 2 calls, nothing lost\n"
        "power loss during forget and purge: N states, nothing lost\n"
        "failing disk during forget and purge: 2 calls, nothing lost\n"
        "full disk during forget and purge: 2 calls, nothing lost\n"
    )
    # those right after a promise come in addition to the 2 that are drawn
    assert all(int(number) > 2 for number in re.findall(r"(\d+) states", result.out))
    assert list(tmp_path.iterdir()) == []


def test_what_fails_on_purpose_is_not_logged(backy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(*_arguments: object, **_more: object) -> int:
        logging.getLogger("backy").error("what follows a backup failed: [Errno 5]")
        return 1

    monkeypatch.setattr("backy.testing.trials.power_losses", noisy)
    monkeypatch.setattr("backy.testing.trials.failing_calls", noisy)
    result = backy("selftest", "--on", tmp_path)
    assert (result.code, result.err) == (0, "")
    # only of the trials, and unless somebody wants to see it
    assert logging.root.manager.disable == 0
    assert "[Errno 5]" in backy("-v", "selftest", "--on", tmp_path).err


def test_a_broken_promise_is_told(backy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_arguments: object, **_more: object) -> int:
        raise BrokenPromiseError("power loss after 7 calls: a complete revision is lost")

    monkeypatch.setattr("backy.testing.trials.power_losses", lost)
    result = backy("selftest", "--on", tmp_path)

    assert result.code == 1
    assert result.err == (
        "Error: power loss after 7 calls: a complete revision is lost: "
        "do not trust images to this machine, and report this\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_loses_what_was_synced_is_found_out(
    backy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backy_storages_chunked.writer.sync_file_system", lambda _descriptor: None)
    result = backy("selftest", "--on", tmp_path, "--count", 40)

    assert result.code == 1
    assert "power loss after" in result.err


def test_a_folder_that_is_not_there_is_refused(backy, tmp_path: Path) -> None:
    result = backy("selftest", "--on", tmp_path / "nowhere")

    assert result.code == 2
    assert "write the path of a folder that is there" in result.err


def test_a_storage_that_can_not_work_there_says_so(backy, tmp_path: Path) -> None:
    result = backy("selftest", "--on", tmp_path, "--storage", "nowhere")

    assert result.code == 1
    assert result.err.startswith("Error: no storage 'nowhere'; ")
    assert list(tmp_path.iterdir()) == []
