from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml

from backy.repository.repository import Repository
from backy.scheduler.monitoring.status import write

WARNING = (
    "WARNING: the scheduler's configuration has 'chunked' for job vm: its next run goes back to it; "
    "write 'cow' there, too\n"
)


@pytest.fixture
def scheduled_job(mount: Callable[[str], Path], backy: Callable) -> Callable[..., Path]:
    """Make a repository of a scheduler with this storage in its configuration, where a status file tells of it."""

    def make(storage: object, *, status: bool = True) -> Path:
        base = mount("btrfs")
        (base / "vm.img").write_bytes(b"image" * 1000)
        assert backy("-b", base / "srv/vm", "init", "file", base / "vm.img").code == 0
        assert backy("-b", base / "srv/vm", "backup", "a").code == 0
        source = {"type": "file", "filename": str(base / "vm.img")}
        content = {
            "global": {"base-dir": str(base / "srv"), "storage": storage},
            "schedules": {"default": {"a": {"interval": "1d", "keep": 1}}},
            "jobs": {"other": {"source": {"type": "file", "filename": "/x"}, "schedule": "default"}},
        }
        content["jobs"]["vm"] = {"source": source, "schedule": "default"}
        (base / "backy.conf").write_text(yaml.safe_dump(content))
        if status:
            plain = dict.fromkeys(("configuration_error",)) | {"configuration": str(base / "backy.conf")}
            now = "2026-01-01T00:00:00Z"
            plain |= {"version": "3", "pid": 1, "started": now, "written": now, "loaded": now, "interval": 30}
            plain |= {"console": [], "problems": [], "plugins": [], "pools": {}, "jobs": []}
            write(base / "srv/status", msgspec.json.encode(plain))
        return base / "srv/vm"

    return make


def test_a_storage_that_the_scheduler_takes_back_is_warned_of(backy: Callable, scheduled_job: Callable) -> None:
    directory = scheduled_job("chunked")
    done = backy("-b", directory, "convert", "--storage", "cow")
    assert (done.code, done.out, done.err) == (0, "Converted 1 revision to 'cow'\n", WARNING)
    assert Repository.open(directory).config.storage.type == "cow"
    # by any name of the directory
    (directory.parent / "link").symlink_to("vm")
    assert backy("-b", directory.parent / "link", "convert", "--storage", "chunked").err == ""


@pytest.mark.parametrize("case", ["named there", "no scheduler", "elsewhere", "broken configuration"])
def test_nobody_is_warned_without_a_reason(backy: Callable, scheduled_job: Callable, case: str) -> None:
    directory = scheduled_job("cow" if case == "named there" else "chunked", status=case != "no scheduler")
    if case == "elsewhere":
        directory = Path(shutil.move(directory, directory.parent.parent / "vm"))
    if case == "broken configuration":
        (directory.parent.parent / "backy.conf").write_text("jobs: [")
    done = backy("-b", directory, "convert", "--storage", "cow")
    assert (done.code, done.err) == (0, "")
