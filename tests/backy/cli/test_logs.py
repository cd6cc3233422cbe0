from __future__ import annotations

import logging
import re
from datetime import datetime
from pathlib import Path

from backy.cli.logs import by_a_thread, is_verbose, set_up_logging
from backy.repository.repository import Repository
from backy.text.phrases import TIME_FORMAT


def test_a_logfile_has_times_and_takes_what_happened(backy, repository: Repository, tmp_path: Path) -> None:
    log = tmp_path / "backy.log"
    done = backy("-l", log, "-b", repository.directory, "backup", "daily")

    assert (done.code, done.err) == (0, "")
    lines = log.read_text().splitlines()
    for line in lines:
        time, rest = line[:19], line[19:]
        assert datetime.strptime(time, TIME_FORMAT).astimezone().strftime(TIME_FORMAT) == time
        assert re.match(r" \[\d+\] INFO ", rest)
    assert lines[-1].endswith("done")


def test_an_error_is_told_and_logged(backy, repository: Repository, image: Path, tmp_path: Path) -> None:
    log = tmp_path / "backy.log"
    image.unlink()
    done = backy("-l", log, "-b", repository.directory, "backup", "daily")

    assert done.code == 1
    assert done.err == f"Error: source {image}: No such file or directory\n"
    assert f"ERROR source {image}: No such file or directory" in log.read_text()


def test_verbose_says_more_on_standard_error(backy, repository: Repository) -> None:
    assert "done" in backy("-v", "-b", repository.directory, "backup", "daily").err


def test_lines_are_written_by_a_thread_and_all_of_them(tmp_path: Path) -> None:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        set_up_logging(tmp_path / "log", verbose=False)
        with by_a_thread():
            for number in range(1000):
                logging.getLogger("backy.test").info("line %d", number)
            assert not is_verbose()
        assert (tmp_path / "log").read_text().count("INFO line") == 1000
        set_up_logging(None, verbose=True)
        with by_a_thread():
            assert is_verbose()
    finally:
        for handler in [one for one in root.handlers if one not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
