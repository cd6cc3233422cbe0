from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from backy.schedule import Interval
from backy.scheduler.config import Configuration, ConfigurationError, load

SMALL = """
schedules:
  default:
    daily: {interval: 1d, keep: 7}
jobs:
  web1:
    source: {type: file, filename: /srv/vm/web1.img}
    schedule: default
"""


@pytest.fixture
def read(tmp_path: Path):
    """Load a configuration from its text."""

    def read(text: str) -> Configuration:
        path = tmp_path / "backy.conf"
        path.write_text(text)
        return load(path)

    return read


def test_what_is_not_written_has_its_default(read) -> None:
    configuration = read(SMALL)
    settings = configuration.settings

    assert (settings.base_dir, configuration.status_file) == (Path("/srv/backy"), Path("/srv/backy/status"))
    assert (settings.worker_limit, settings.status_interval) == (1, timedelta(seconds=30))
    assert (configuration.telnet_addresses, settings.telnet_port) == (("::1", "127.0.0.1"), 6023)
    assert (settings.backup_completed_callback, settings.storage, settings.verifier) == (None, "chunked", None)
    job = configuration.jobs["web1"]
    assert (job.name, job.schedule_name, job.schedule) == ("web1", "default", {"daily": Interval(timedelta(1), 7)})
    assert (job.storage, job.verifier, job.expire, job.time_limit) == ({"type": "chunked"}, None, True, None)
    assert configuration.repository(job) == Path("/srv/backy/web1")


def test_every_problem_is_told_with_its_line(read) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(SMALL.replace("1d", "1x").replace("default\n", "defalt\n") + "glob:\n")

    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (4, "schedules.default.daily.interval"),
        (8, "jobs.web1.schedule"),
        (9, "glob"),
    ]
    assert "did you mean 'default'? there are: default" in caught.value.problems[1].message
    assert "2 more" in str(caught.value)
