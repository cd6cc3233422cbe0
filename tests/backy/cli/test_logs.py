from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from backy.cli.logs import by_a_thread, set_up_logging
from backy.repository.repository import Repository
from backy.text.phrases import TIME_FORMAT

MAIN = "from backy.cli.main import main; main()"


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
    set_up_logging(tmp_path / "log", verbose=False)
    logging.getLogger().setLevel(logging.WARNING)
    with by_a_thread():
        for number in range(1000):
            logging.getLogger("backy.test").info("line %d", number)
        assert not logging.getLogger().isEnabledFor(logging.DEBUG)
    assert logging.getLogger().level == logging.WARNING
    assert (tmp_path / "log").read_text().count("INFO line") == 1000
    set_up_logging(None, verbose=True)
    with by_a_thread():
        assert logging.getLogger().isEnabledFor(logging.DEBUG)


def test_a_logfile_may_be_a_link_of_the_caller_or_a_descriptor(backy, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("backy.log")
    assert backy("-l", tmp_path / "link", "-b", repository.directory, "status").code == 0
    assert (tmp_path / "backy.log").read_text().endswith("INFO done\n")
    # A test reads this descriptor by a file without a name, a service by a pipe.
    command = ["sh", "-c", '"$0" -c "$1" -l /dev/stderr -b "$2" status 2>&1 >/dev/null | cat', sys.executable, MAIN]
    done = subprocess.run([*command, repository.directory], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("INFO done\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can make links of others")
def test_a_logfile_that_becomes_a_link_of_somebody_else_is_not_followed(tmp_path: Path, backy) -> None:
    assert backy("-l", tmp_path / "log", "--version").code == 0
    set_up_logging(tmp_path / "log", verbose=False)
    (tmp_path / "log").unlink()
    (tmp_path / "log").symlink_to("precious")
    os.lchown(tmp_path / "log", 1234, 1234)

    with pytest.raises(PermissionError, match="is a symbolic link of user 1234"):
        logging.getLogger("backy").warning("something")
    assert not (tmp_path / "precious").exists()
