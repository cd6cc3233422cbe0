from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backy.plugins.discovery import VARIABLE, Kind, advertised, opened
from backy.plugins.events import Events
from backy.repository.repository import Repository

PAGER = """
from backy.hookspecs import hookimpl
@hookimpl
def backy_backup_finished(job): (job.directory / "told").write_text(__file__)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for plugins with one in it, which only its owner can change."""
    made = tmp_path / "plugins.d"
    made.mkdir(mode=0o755)
    (made / "pager.py").write_text(PAGER)
    (made / "pager.py").chmod(0o644)
    (made / "README").write_text("no plugin")
    monkeypatch.setenv(VARIABLE, "")  # so that it is set back after the test
    return made


def test_a_file_is_a_plugin(folder: Path, backy: Callable, repository: Repository) -> None:
    done = backy("--plugins-dir", folder, "-b", repository.directory, "backup", "daily")

    assert (done.code, done.err) == (0, "")
    assert (repository.directory / "told").read_text() == str(folder / "pager.py")
    assert os.environ[VARIABLE] == str(folder)  # for the children of a scheduler
    assert f"hook 'pager' of {folder}/pager.py (a file): ok" in backy("plugins", "show", "pager").out


@pytest.mark.parametrize("wrong", ["file", "folder", "link", "linked folder", "owner", "sudo"])
def test_a_file_that_others_can_change_is_not_run(
    wrong: str, folder: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder / "pager.py"
    if wrong == "file":
        file.chmod(0o664)
    elif wrong == "folder":
        folder.chmod(0o777)
    elif wrong == "link":
        file.rename(folder.parent / "elsewhere")
        file.symlink_to(folder.parent / "elsewhere")
    elif wrong == "linked folder":
        folder.rename(folder.parent / "elsewhere")
        folder.symlink_to(folder.parent / "elsewhere")
    elif os.geteuid() != 0:
        pytest.skip("NOT TESTED: files of others can be made by root only")
    else:
        os.chown(file, 65534, -1)
        if wrong == "sudo":
            monkeypatch.setattr(os, "geteuid", lambda: 65534)
            monkeypatch.setenv("SUDO_UID", "65534")

    with pytest.raises(OSError):  # noqa: PT011  # a link is refused by the kernel
        os.close(opened(file))
    monkeypatch.setenv(VARIABLE, str(folder))
    with Events.installed() as events:
        events.tell("backy_backup_finished", job=repository.job)
    assert not (repository.directory / "told").exists()


def test_a_folder_that_is_not_there_has_no_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))

    assert "pager" not in advertised(Kind.HOOK)
