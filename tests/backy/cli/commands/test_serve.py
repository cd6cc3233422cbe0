"""`backy serve`, `pull` and `push` with words that mean nothing; what they do is tested in tests/backy/copies."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.errors import ExitCode
from backy.repository.repository import Repository


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "."],
        ["serve", "--read-only"],
        ["-b", "vm", "pull"],
        ["-b", "vm", "pull", "there", "--since", "yesterday"],
        ["-b", "vm", "pull", "there", "--rate", "fast"],
        ["-b", "vm", "push", "there", "--tags", "a,,b"],
        ["-b", "vm", "push", "there", "--storage", "cow"],
    ],
    ids=" ".join,
)
def test_words_that_mean_nothing(backy: Callable, words: list[str]) -> None:
    result = backy(*words)
    assert result.code == ExitCode.USAGE
    assert len([line for line in result.err.splitlines() if line.startswith("Error: ")]) == 1


def test_who_says_nothing_gets_an_exit_code_and_no_line(
    backy: Callable, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mode in ("--read-only", "--append"):
        for content in (b"", b"GET / HTTP/1.0\r\n\r\n", bytes(1000)):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            result = backy("serve", mode, repository.directory)
            assert (result.code, result.err) == (ExitCode.FAILED, "")
            assert "Refusal" in result.out


def test_a_new_copy_has_the_keys_that_it_is_given(backy: Callable, repository: Repository, tmp_path: Path) -> None:
    words = ["pull", repository.directory, "-o", "storage.compression=9"]
    result = backy("-b", tmp_path / "copy", *words, "-o", "schedule.daily={interval: 1d, keep: 7}")
    assert result.code == ExitCode.DONE, result
    config = Repository.open(tmp_path / "copy").config
    assert config.storage == {"type": "chunked", "compression": 9}
    assert config.schedule["daily"].keep == 7
    result = backy("-b", tmp_path / "other", *words, "-o", "storages.compression=9")
    assert result.code == ExitCode.FAILED
    assert result.err.startswith("Error: no section 'storages' takes options")
    assert not (tmp_path / "other").exists()


def test_a_disk_that_is_not_mounted(backy: Callable, repository: Repository, tmp_path: Path) -> None:
    for words in (["push", tmp_path / "drawer"], ["pull", tmp_path / "drawer"]):
        result = backy("-b", repository.directory, *words)
        assert result.code == ExitCode.FAILED
        assert result.err == f"Error: there is no folder {tmp_path}/drawer: is its disk mounted?\n"
    (tmp_path / "drawer").mkdir()
    result = backy("-b", repository.directory, "push", tmp_path / "drawer")
    assert result.code == ExitCode.FAILED
    assert "is no repository; 'backy -b" in result.err
    assert not [*(tmp_path / "drawer").iterdir()]
