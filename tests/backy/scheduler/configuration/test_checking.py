"""`backy check-config` tells all that is wrong at once, in the file and around it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backy.scheduler.configuration.checking import check
from backy.scheduler.configuration.document import ConfigurationError

Content = dict[str, Any]


def sound(folder: Path) -> Content:
    """Return a configuration in which nothing is wrong."""
    (folder / "srv").mkdir(exist_ok=True)
    callback = folder / "callback"
    callback.write_text("#!/bin/sh\n")
    callback.chmod(0o700)
    jobs = {
        name: {"source": {"type": "file", "filename": f"/{name}.img"}, "schedule": "default"} for name in "abcdefgh"
    }
    return {
        "global": {
            "base-dir": str(folder / "srv"),
            "backup-completed-callback": str(callback),
            "telnet-addrs": "127.0.0.1",
            "storage": {"type": "chunked"},
            "worker-limit": 2,
        },
        "schedules": {
            "default": {"daily": {"interval": "1d", "keep": 7}, "weekly": {"interval": "7d", "keep": 3}},
            "other": {"daily": {"interval": "1d", "keep": 7}},
        },
        "jobs": jobs,
    }


def put(*path: str, value: object) -> Callable[[Content], None]:
    """Return a change that gives a key a value."""

    def change(content: Content) -> None:
        *above, last = path
        for part in above:
            content = content.setdefault(part, {})
        content[last] = value

    return change


def drop(*path: str) -> Callable[[Content], None]:
    """Return a change that removes a key."""

    def change(content: Content) -> None:
        *above, last = path
        for part in above:
            content = content[part]
        del content[last]

    return change


def both(*changes: Callable[[Content], None]) -> Callable[[Content], None]:
    return lambda content: [change(content) for change in changes] and None


# Each is one mistake, or those that one key has; none has anything to do with another.
MISTAKES: dict[str, tuple[Callable[[Content], None], list[str]]] = {
    "global, type of a value": (
        put("global", "worker-limit", value="two"),
        ["global.worker-limit: expected a whole number, got 'two'"],
    ),
    "global, unknown key": (put("global", "telnet", value=1), ["global.telnet: unknown key; "]),
    "global, not there": (
        put("global", "metrics-file", value="/nowhere/backy.prom"),
        ["global.metrics-file: there is no folder /nowhere"],
    ),
    "global, program": (
        put("global", "backup-completed-callback", value="/nowhere/callback"),
        ["global.backup-completed-callback: there is no program /nowhere/callback"],
    ),
    "global, address": (
        put("global", "telnet-addrs", value=["127.0.0.1", "foo.example", "foo..example"]),
        ["global.telnet-addrs: 'foo.example' is no IP address", "global.telnet-addrs: 'foo..example' is no IP address"],
    ),
    "global, option of a plugin": (
        put("global", "storage", value={"type": "chunked", "compression": 99, "x": 1}),
        [
            "global: storage.compression: expected a whole number of at most 19, got 99",
            "global: storage.x: unknown key",
        ],
    ),
    "schedule, wrong tag": (
        put("schedules", "default", "weekly", "keep", value=0),
        ["schedules.default.weekly.keep: expected a whole number of at least 1, got 0"],
    ),
    "schedule, name of a tag": (
        put("schedules", "other", "7", value={"interval": "1d", "keep": 1}),
        ["schedules.other.7: '7' can be no tag"],
    ),
    "section, unknown": (put("peers", value={}), ["peers: unknown key; there are: global,"]),
    "hook, not installed": (put("hooks", "pager", value={}), ["hooks.pager: no hook 'pager' is installed"]),
    "job, schedule and source": (
        both(put("jobs", "a", "schedule", value="defalt"), put("jobs", "a", "source", "type", value="fiel")),
        ["jobs.a.schedule: no schedule 'defalt'; did you mean 'default'?", "jobs.a: no source 'fiel'; did you mean"],
    ),
    "job, no source, storage, verifier": (
        both(
            drop("jobs", "b", "source"),
            put("jobs", "b", "storage", value="cows"),
            put("jobs", "b", "verifier", value={"type": "sample", "percent": 0}),
        ),
        [
            "jobs.b: the key 'source' is missing",
            "jobs.b: no storage 'cows'",
            "jobs.b: verifier.percent: expected a number above 0.0, got 0",
        ],
    ),
    "job, keep of another tag": (
        put("jobs", "c", "keep", value={"dayly": 3, "weekly": 4}),
        ["jobs.c.keep.dayly: unknown key; did you mean 'daily'?"],
    ),
    "job, keep without a source": (
        both(drop("jobs", "d", "source", "type"), put("jobs", "d", "keep", value={"dayly": 3})),
        ["jobs.d.source: the key 'type' is missing", "jobs.d.keep.dayly: unknown key"],
    ),
    "job, source of another": (
        put("jobs", "f", "source", "filename", value="/e.img"),
        ["jobs.f.source: is the source of jobs.e, too"],
    ),
    "job, options of a source": (
        put("jobs", "g", "source", value={"type": "file", "filename": "g.img", "freez": 1}),
        ["jobs.g: source.filename: 'g.img' is no absolute path", "jobs.g: source.freez: unknown key"],
    ),
    "job, name": (
        put("jobs", "-x", value={"source": {"type": "file", "filename": "/x"}, "schedule": "other"}),
        ["jobs.-x: a job's name is that of its folder"],
    ),
}


def told(folder: Path, content: Content) -> list[str]:
    """Return the problems of a configuration without their lines."""
    path = folder / "backy.conf"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    try:
        check(path)
    except ConfigurationError as error:
        return [str(problem).partition(": ")[2] for problem in error.problems]
    return []


def test_nothing_is_told_of_what_is_sound_and_nothing_is_left(tmp_path: Path) -> None:
    assert told(tmp_path, sound(tmp_path)) == []
    assert list((tmp_path / "srv").iterdir()) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(list(MISTAKES)), min_size=1, unique=True))
def test_no_mistake_hides_another(tmp_path: Path, names: list[str]) -> None:
    """Whatever is wrong together: each is told, once, and nothing that is not wrong."""
    content = sound(tmp_path)
    for name in names:
        MISTAKES[name][0](content)
    expected = [text for name in names for text in MISTAKES[name][1]]
    found = told(tmp_path, content)
    assert [text for text in expected if sum(one.startswith(text) for one in found) != 1] == []
    assert [one for one in found if not any(one.startswith(text) for text in expected)] == []


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    content = sound(tmp_path)
    for change, _ in MISTAKES.values():
        change(content)
    assert len(told(tmp_path, content)) == sum(len(texts) for _, texts in MISTAKES.values())


def test_both_names_of_global_are_looked_at(tmp_path: Path) -> None:
    content = sound(tmp_path)
    content["config"] = {**content["global"], "worker-limit": 0}
    content["global"]["status-interval"] = "x"
    found = told(tmp_path, content)
    assert [text.partition(": ")[0] for text in found] == [
        "config",
        "config.worker-limit",
        "global.status-interval",
    ] or [text.partition(": ")[0] for text in found] == ["global.status-interval", "config", "config.worker-limit"]


def test_a_base_directory_has_to_be_there(tmp_path: Path) -> None:
    content = sound(tmp_path)
    (tmp_path / "srv").rmdir()
    (found,) = told(tmp_path, content)
    assert found.startswith(f"global.base-dir: there is no folder {tmp_path}/srv: is its disk mounted?")


def test_a_wrong_base_directory_is_told_once(tmp_path: Path) -> None:
    content = sound(tmp_path)
    content["global"]["base-dir"] = "srv"
    assert told(tmp_path, content) == ["global.base-dir: 'srv' is no absolute path"]


@pytest.mark.parametrize("kind", ["ext4", "xfs without reflink"])
def test_a_storage_has_to_be_able_to_work_there(tmp_path: Path, mount, kind: str) -> None:
    base = mount(kind)
    content = sound(tmp_path)
    content["global"]["base-dir"] = str(base)
    content["jobs"]["c"]["storage"] = content["jobs"]["d"]["storage"] = "cow"
    (found,) = told(tmp_path, content)
    assert found.startswith(f"global.base-dir: storage 'cow', which c has, can not work in {base}: ")
    assert ".check-" not in found
    # a disk of its own for one job
    (base / "c").mkdir()
    (base / "d").symlink_to(mount("btrfs"))
    (found,) = told(tmp_path, content)
    assert found.startswith(f"global.base-dir: storage 'cow', which c has, can not work in {base}/c: ")
    content["jobs"]["c"]["storage"] = "chunked"
    assert told(tmp_path, content) == []


def test_what_this_user_may_not_look_at_is_said(tmp_path: Path, as_nobody) -> None:
    content = sound(tmp_path)
    path = tmp_path / "backy.conf"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "callback").chmod(0o755)
    # first as root, who alone may be allowed to read the modules that it takes
    assert check(path)[1] == []
    with as_nobody():
        assert check(path)[1] == [f"whether storage 'chunked' can work in {tmp_path}/srv"]
    # what may not be looked at keeps nobody from hearing of the rest
    (tmp_path / "srv").chmod(0o700)
    with as_nobody():
        assert check(path)[1] == [f"global.base-dir: {tmp_path}/srv/a"]
    content["global"]["metrics-file"] = "/nowhere/backy.prom"
    path.write_text(yaml.safe_dump(content))
    with as_nobody(), pytest.raises(ConfigurationError, match=r"global\.metrics-file: there is no folder /nowhere"):
        check(path)


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("#!/bin/sh\n", 0o600, "is not executable"),
        ("#!/nowhere/sh -e\n", 0o700, "names a program that is not there in its first line"),
        ("#!\n", 0o700, "names a program that is not there in its first line"),
        ("#! /bin/sh -e\n", 0o700, None),
        ("\x7fELF", 0o700, None),
    ],
)
def test_a_callback_has_to_be_a_program(tmp_path: Path, content: str, mode: int, said: str | None) -> None:
    configuration = sound(tmp_path)
    callback = tmp_path / "callback"
    callback.write_text(content)
    callback.chmod(mode)
    expected = [f"global.backup-completed-callback: {callback} {said}"] if said else []
    assert told(tmp_path, configuration) == expected


def test_an_address_has_to_be_one_of_this_machine_and_may_be_in_use(tmp_path: Path) -> None:
    content = sound(tmp_path)
    content["global"]["telnet-addrs"] = ["192.0.2.1", "127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as running:
        content["global"]["telnet-port"] = running.getsockname()[1]
        assert told(tmp_path, content) == [
            "global.telnet-addrs: the console can not listen at 192.0.2.1: Cannot assign requested address"
        ]
