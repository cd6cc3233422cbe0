"""Modules of Debian's packages, which lie where a virtual environment does not look."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backy import debian
from backy.debian import MissingModuleError, debian_modules


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(debian, "_FOLDER", tmp_path)
    for name in ("backytestpart", "backytestwhole", "backytestother"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_a_module_is_found_with_what_it_needs_and_nothing_else(folder: Path) -> None:
    (folder / "backytestpart.py").write_text("VALUE = 7\n")
    (folder / "backytestwhole.py").write_text("from backytestpart import VALUE\n")
    (folder / "backytestother.py").touch()

    assert debian_modules("python3-some", "backytestpart", "backytestwhole")[-1].VALUE == 7
    with pytest.raises(ModuleNotFoundError):
        __import__("backytestother")


def test_what_is_not_installed_is_named_with_its_package() -> None:
    with pytest.raises(MissingModuleError, match=r"install Debian's package python3-some$"):
        debian_modules("python3-some", "backytestpart")


def test_what_is_made_for_another_python_is_told(folder: Path) -> None:
    (folder / "backytestpart.cpython-299-x86_64-linux-gnu.so").touch()

    with pytest.raises(MissingModuleError, match=r"made for Debian's own Python: make .* by /usr/bin/python3$"):
        debian_modules("python3-some", "backytestpart")


def test_a_module_that_fails_is_not_kept(folder: Path) -> None:
    (folder / "backytestpart.py").write_text("raise ImportError('libsome.so.1: cannot open shared object file')\n")

    for _ in range(2):
        with pytest.raises(MissingModuleError, match=r"libsome\.so\.1: cannot open shared object file"):
            debian_modules("python3-some", "backytestpart")
