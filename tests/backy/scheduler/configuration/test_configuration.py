from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backy.repository.config import ScheduledTag
from backy.scheduler.configuration.configuration import Configuration, load
from backy.scheduler.configuration.document import ConfigurationError

SMALL = """\
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

    def read(text: str | bytes) -> Configuration:
        path = tmp_path / "backy.conf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path)

    return read


@pytest.fixture
def problems(read):
    """Load a configuration that is wrong and return what is said of it."""

    def problems(text: str | bytes) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            read(text)
        assert "\n" not in str(caught.value)
        return [str(problem) for problem in caught.value.problems]

    return problems


def test_what_is_not_written_has_its_default(read) -> None:
    configuration = read(SMALL)
    settings = configuration.settings

    assert (settings.base_dir, settings.status_path) == (Path("/srv/backy"), Path("/srv/backy/status"))
    assert (settings.worker_limit, settings.status_interval) == (1, timedelta(seconds=30))
    assert (configuration.telnet_addresses, settings.telnet_port) == (("::1", "127.0.0.1"), 6023)
    assert settings.backup_completed_callback is None
    job = configuration.jobs["web1"]
    assert (job.name, job.schedule) == ("web1", {"daily": ScheduledTag(timedelta(1), 7)})
    assert (job.config.storage, job.config.verifier, job.config.expire, job.time_limit) == (
        {"type": "chunked"},
        None,
        True,
        None,
    )
    assert job.directory == Path("/srv/backy/web1")


def test_everything_that_is_written_counts(read) -> None:
    text = SMALL + "    keep: {daily: 3}\n    storage: {type: cow}\n    verifier: none\n    expire: false\n"
    text += "    time-limit: 90\n  other: {source: {type: file}, schedule: default}\n"
    settings = """
    base-dir: /backups
    worker-limit: 3
    status-file: /run/backy/status
    status-interval: 1m
    telnet-addrs: "::1, 10.0.0.1 ,"
    telnet-port: 6024
    backup-completed-callback: /bin/true
    storage: {type: chunked, compression: 3}
    verifier: sample
    expire: true
    time-limit: 6h
"""
    configuration = read(f"global:{settings}{text}")

    assert configuration == read(f"config:{settings}{text}")
    assert (configuration.settings.worker_limit, configuration.settings.telnet_port) == (3, 6024)
    assert configuration.settings.status_path == Path("/run/backy/status")
    assert configuration.settings.status_interval == timedelta(minutes=1)
    assert configuration.telnet_addresses == ("::1", "10.0.0.1")
    assert configuration.settings.backup_completed_callback == Path("/bin/true")
    web1, other = configuration.jobs.values()
    assert web1.schedule == {"daily": ScheduledTag(timedelta(1), 3)}
    assert (web1.config.storage, web1.config.verifier, web1.config.expire) == (
        {"type": "cow"},
        [{"type": "none"}],
        False,
    )
    assert web1.time_limit == timedelta(seconds=90)
    assert other.schedule == configuration.schedules["default"] == {"daily": ScheduledTag(timedelta(1), 7)}
    assert other.config.storage == {"type": "chunked", "compression": 3}
    assert other.config.verifier == [{"type": "sample"}]
    assert (other.config.expire, other.time_limit) == (True, timedelta(hours=6))
    assert other.directory == Path("/backups/other")


def test_a_job_may_have_several_verifiers(read) -> None:
    (job, *_) = read(f"{SMALL}    verifier: [full, {{type: sample, percent: 5}}]\n").jobs.values()
    assert job.config.verifier == [{"type": "full"}, {"type": "sample", "percent": 5}]


@pytest.mark.parametrize("addresses", ["''", "[]", "','"])
def test_the_console_can_be_switched_off(read, addresses: str) -> None:
    assert read(f"global: {{telnet-addrs: {addresses}}}\n{SMALL}").telnet_addresses == ()


@pytest.mark.parametrize("addresses", ["'::1,127.0.0.1'", "['::1', 127.0.0.1]"])
def test_addresses_are_a_list_or_have_commas(read, addresses: str) -> None:
    assert read(f"global: {{telnet-addrs: {addresses}}}\n{SMALL}").telnet_addresses == ("::1", "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("86400", 86400), ("'86400'", 86400), ("1", 1), ("1s", 1), ("5m", 300), ("25h", 90000), ("2w", 1209600)],
)
def test_durations_are_text_or_seconds(read, text: str, seconds: int) -> None:
    schedules = read(SMALL.replace("1d", text)).schedules
    assert schedules["default"]["daily"].interval == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("general", "own", "hours"),
    [
        ("{}", "", 1),
        ("{standstill: 2h}", "", 2),
        ("{standstill: 0}", "", None),
        ("{standstill: null}", "", None),
        ("{standstill: 0}", "    standstill: 3h\n", 3),
        ("{}", "    standstill: 0\n", None),
        ("{}", "    standstill: null\n", 1),
    ],
)
def test_standstill_has_a_limit_that_can_be_taken_away(read, general: str, own: str, hours: int | None) -> None:
    expected = None if hours is None else timedelta(hours=hours)
    assert read(f"global: {general}\n{SMALL}{own}").jobs["web1"].standstill == expected


def test_a_time_limit_can_be_taken_away_from_a_job(read) -> None:
    assert read(f"global: {{time-limit: 6h}}\n{SMALL}    time-limit: 0\n").jobs["web1"].time_limit is None


def test_an_empty_section_global_and_no_jobs_are_no_mistake(read) -> None:
    assert read(f"global:\n{SMALL.partition('jobs')[0]}jobs: {{}}\n").jobs == {}


@pytest.mark.parametrize(
    "name", ["123", "no", "null", "2026-02-30", "vm01-root", "a", "x" * 200, "büro", "a.b_c@d:e+f"]
)
def test_a_job_is_called_what_is_written(read, name: str) -> None:
    (job,) = read(SMALL.replace("web1:", f"{name}:")).jobs.values()
    assert job.name == name


def test_anchors_aliases_and_merges_are_taken(read) -> None:
    text = SMALL.replace("  web1:", "  web1: &web").replace("daily: {", "daily: &tag {")
    text += "  web2:\n    <<: *web\n    expire: false\n  web3: *web\n"
    text = text.replace("jobs:", "  rare: {weekly: {<<: *tag, interval: 7d}}\njobs:")
    configuration = read(text)

    assert [job.config.expire for job in configuration.jobs.values()] == [True, False, True]
    assert configuration.schedules["rare"] == {"weekly": ScheduledTag(timedelta(7), 7)}


MISTAKES = {
    "nothing": ("", "line 1: expected keys and values, got nothing"),
    "a list": ("[1]", "line 1: expected keys and values, got [1]"),
    "no YAML": ("jobs: [", "line 2: not YAML: look for a quote"),
    "a tab": ("jobs:\n\tweb1: x", "line 2: not YAML: a tab; set lines in by blanks"),
    "control character": ("a: ü\n\n\x01: 1", "line 3: not YAML: it has control characters; remove them"),
    "not UTF-8": (b"\xff\xff: 1", "line 1: not YAML: it has characters that are not UTF-8"),
    "two documents": (f"{SMALL}---\n{SMALL}", "line 8: not YAML: look for a quote"),
    "python object": (f"{SMALL}x: !!python/name:os.system ''", "line 8: not YAML: look for a quote"),
    "key that is a list": ("? [a]\n: b\n", "line 1: not YAML: a key is not a plain word"),
    "alias in its own anchor": ("jobs: &a {b: *a}", "line 1: not YAML: look for a quote"),
    "nested a thousand times": ("[" * 9999, "line 1: not YAML: "),
    "jobs missing": (
        SMALL.partition("jobs")[0],
        "line 1: the section 'jobs' is missing; it has the jobs by their names",
    ),
    "schedules missing": ("jobs: {}", "line 1: the section 'schedules' is missing; it has at least one schedule"),
    "jobs empty": (f"{SMALL.partition('jobs')[0]}jobs:\n", "line 4: jobs: expected keys and values, got nothing"),
    "unknown section": (
        f"{SMALL}job: {{}}",
        "line 8: job: unknown key; did you mean 'jobs'? there are: global, include, hooks,",
    ),
    "section twice": (SMALL + SMALL, "line 8: schedules: is there already, in line 1"),
    "job twice": (f"{SMALL}  web1: {{}}\n", "line 8: web1: is there already, in line 5"),
    "both names of global": (f"global: {{}}\nconfig: {{}}\n{SMALL}", "line 2: config: is another name of 'global'"),
    "global is text": (f"global: x\n{SMALL}", "line 1: global: expected keys and values, got 'x'"),
}
GLOBAL_MISTAKES = {
    "worker-limt: 3": "global.worker-limt: unknown key; did you mean 'worker-limit'? there are: base-dir,",
    "worker_limit: 3": "global.worker_limit: unknown key; did you mean 'worker-limit'?",
    "api: {}": "global.api: unknown key; there are: base-dir,",
    "base-dir: backy": "global.base-dir: 'backy' is no absolute path",
    "base-dir: 3": "global.base-dir: expected a path, got 3",
    "worker-limit: 0": "global.worker-limit: expected a whole number of at least 1, got 0",
    "worker-limit: 1.5": "global.worker-limit: expected a whole number, got 1.5",
    "worker-limit: two": "global.worker-limit: expected a whole number, got 'two'",
    "worker-limit: '3,'": "global.worker-limit: expected a whole number, got '3,'; the comma at its end belongs to the",
    "status-file: status": "global.status-file: 'status' is no absolute path",
    "status-interval: often": "global.status-interval: 'often' is no duration; write a number and s, m, h",
    "status-interval: 0.5": "global.status-interval: expected a duration such as '30m', or seconds, got 0.5",
    "status-interval: yes": "global.status-interval: expected a duration such as '30m', or seconds, got True",
    "telnet-addrs: 3": "global.telnet-addrs: expected text or a list, got a number; text of digits needs quotes",
    "telnet-addrs: [1]": "global.telnet-addrs: expected text, got [1]",
    "telnet-port: 65536": "global.telnet-port: expected a whole number of at most 65535, got 65536",
    "telnet-port: 0": "global.telnet-port: expected a whole number of at least 1, got 0",
    "backup-completed-callback: notify me": "global.backup-completed-callback: 'notify me' is no absolute path",
    "storage: {compression: 3}": "global.storage: the key 'type' is missing; it names the plugin, as in 'type: file'",
    "verifier: 3": "global.verifier: expected text or keys and values, got 3",
    "expire: maybe": "global.expire: expected true or false, got 'maybe'",
    "time-limit: 1h30m": "global.time-limit: '1h30m' is no duration",
}
TAG_MISTAKES = {
    "{keep: 7}": "the key 'interval' is missing",
    "{interval: 1d}": "the key 'keep' is missing",
    "7": "expected keys and values, got 7",
    "{interval: 1d, keep: 7, tag: x}": "tag: unknown key; there are: interval, keep",
    "{interval: '1d,', keep: 7}": "interval: '1d,' is no duration; write a number and s, m, h, d or w, as in '30m'; "
    "the comma at its end belongs to the value",
    "{interval: 1 day, keep: 7}": "interval: '1 day' is no duration",
    "{interval: 1.5d, keep: 7}": "interval: '1.5d' is no duration",
    "{interval: 1:30, keep: 7}": "interval: '1:30' is no duration",
    "{interval: -1, keep: 7}": "interval: -1 is no duration",
    "{interval: 0, keep: 7}": "an interval is at least a second and at most 3650 days",
    "{interval: 3651d, keep: 7}": "an interval is at least a second and at most 3650 days",
    "{interval: 999999999w, keep: 7}": "interval: '999999999w' is too long",
    "{interval: , keep: 7}": "interval: expected a duration such as '30m', or seconds, got nothing",
    "{interval: 1d, keep: 0}": "keep: expected a whole number of at least 1, got 0",
    "{interval: 1d, keep: -7}": "keep: expected a whole number of at least 1, got -7",
    "{interval: 1d, keep: 100001}": "keep: expected a whole number of at most 100000, got 100001",
    "{interval: 1d, keep: 010}": "keep: expected a whole number, got '010'",
    "{interval: 1d, keep: seven}": "keep: expected a whole number, got 'seven'",
    "{interval: 1d, keep: '7,'}": "keep: expected a whole number, got '7,'; the comma at its end belongs to the value",
}
JOB_MISTAKES = {
    "{schedule: default}": "the key 'source' is missing",
    "{source: {type: x}}": "the key 'schedule' is missing",
    "web": "expected keys and values, got 'web'",
    "{type: file, filename: /x, schedule: default}": "type: unknown key; there are: source, disks, pull, tags, ",
    "{source: /x, schedule: default}": "source: expected keys and values, got '/x'",
    "{source: {filename: /x}, schedule: default}": "source: the key 'type' is missing; it names the plugin",
    "{source: {type: x, backend: cowfile}, schedule: default}": "source.backend: write 'storage: chunked' or 'storage:",
    "{source: {type: x}, schedule: defaults}": "schedule: no schedule 'defaults'; did you mean 'default'? there are: d",
    "{source: {type: x}, schedule: 'default,'}": "schedule: no schedule 'default,'; did you mean 'default'? there are:",
    "{source: {type: x}, schedule: {daily: 1}}": "schedule: expected text, got {'daily': 1}",
    "{source: {type: x}, schedule: no}": "schedule: expected text, got False; to YAML yes, no, on and off are no words",
    "{source: {type: x}, schedule: default, keep: {dayly: 1}}": "keep.dayly: unknown key; did you mean 'daily'? there",
    "{source: {type: x}, schedule: default, keep: {daily: 0}}": "keep: expected a whole number of at least 1, got {",
    "{source: {type: x}, schedule: default, storage: 3}": "storage: expected text or keys and values, got 3",
    "{source: {type: x}, schedule: default, time-limit: x}": "time-limit: 'x' is no duration",
}
NAME_MISTAKES = {
    "../web": "a job's name is that of its folder: letters, digits and _ . @ + : -, the first a letter, a digit or _",
    "/web": "a job's name is that of its folder",
    ".": "a job's name is that of its folder",
    "..": "a job's name is that of its folder",
    ".lock": "a job's name is that of its folder",
    "a/b": "a job's name is that of its folder",
    "a b": "a job's name is that of its folder",
    "-b": "a job's name is that of its folder",
    "''": "a job's name is that of its folder",
    '"a\\0"': "a job's name is that of its folder",
    '"a\\n"': "a job's name is that of its folder",
    "x" * 201: "a job's name is that of its folder",
    "status": "is the name of the status file; call the job otherwise, or set global.status-file",
}
TAG_NAME_MISTAKES = {
    "manual:daily": "no schedule gives tags that begin with 'manual:' or 'pinned:'",
    "pinned:shrunk": "no schedule gives tags that begin with 'manual:' or 'pinned:'",
    "'a,b'": "'a,b' can be no tag: a tag has no comma, no control character, and no blank at its ends",
    "''": "'' can be no tag: a tag has no comma, no control character, and no blank at its ends",
    "' a'": "' a' can be no tag: a tag has no comma, no control character, and no blank at its ends",
    '"a\\n"': "'a\\n' can be no tag: a tag has no comma, no control character, and no blank at its ends",
    "7": "'7' can be no tag: '-r 7' means the revision of that number",
    "last": "'last' can be no tag: '-r last' means the revision of that place",
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_file_is_told(problems, text: str | bytes, message: str) -> None:
    assert any(found.startswith(message) for found in problems(text)), problems(text)


@pytest.mark.parametrize("text", GLOBAL_MISTAKES)
def test_a_mistake_in_global_is_told(problems, text: str) -> None:
    (found,) = problems(f"global:\n  {text}\n{SMALL}")
    assert found.startswith(f"line 2: {GLOBAL_MISTAKES[text]}")


@pytest.mark.parametrize("text", TAG_MISTAKES)
def test_a_mistake_in_a_schedule_is_told(problems, text: str) -> None:
    (found,) = problems(SMALL.replace("{interval: 1d, keep: 7}", text))
    assert found.removeprefix("line 3: schedules.default.daily").lstrip(".: ").startswith(TAG_MISTAKES[text])


def test_a_schedule_without_tags_is_a_mistake(problems) -> None:
    (found,) = problems(
        SMALL.replace("    daily: {interval: 1d, keep: 7}\n", "").replace("default:\n", "default: {}\n")
    )
    assert found == "line 2: schedules.default: has no tag; write one as in 'daily: {interval: 1d, keep: 7}'"


@pytest.mark.parametrize("text", JOB_MISTAKES)
def test_a_mistake_in_a_job_is_told(problems, text: str) -> None:
    found = problems(f"{SMALL}  bad: {text}\n")
    assert all(problem.startswith("line 8: jobs.bad") for problem in found)
    found = [problem.removeprefix("line 8: jobs.bad").lstrip(".: ") for problem in found]
    assert any(problem.startswith(JOB_MISTAKES[text]) for problem in found), found


@pytest.mark.parametrize("name", NAME_MISTAKES)
def test_a_name_that_is_no_folders_is_told(problems, name: str) -> None:
    (found,) = problems(SMALL.replace("web1:", f"{name}:"))
    assert found.startswith("line 5: jobs.")
    assert NAME_MISTAKES[name] in found


@pytest.mark.parametrize("name", TAG_NAME_MISTAKES)
def test_a_tag_that_is_none_is_told(problems, name: str) -> None:
    (found,) = problems(SMALL.replace("daily:", f"{name}:"))
    assert found.startswith("line 3: schedules.default.")
    assert found.endswith(TAG_NAME_MISTAKES[name])


def test_a_missing_file_and_one_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.conf: can not be read: No such file or directory"):
        load(tmp_path / "none.conf")
    with pytest.raises(ConfigurationError, match=": can not be read: it is no regular file"):
        load(tmp_path)


def test_every_problem_is_told_with_its_line(read) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(SMALL.replace("1d", "1x").replace("default\n", "defalt\n") + "glob:\n")

    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        (3, "schedules.default.daily.interval"),
        (7, "jobs.web1.schedule"),
        (8, "glob"),
    ]
    assert str(caught.value).endswith(f"2 more: 'backy check-config -c {caught.value.path}' shows all")


EXPECTED_DURATION = "write a number and s, m, h, d or w, as in '30m'"
OLD_EXAMPLE = """
global:
    base-dir: /srv/backy,
    worker-limit: 2,
schedules:
    frequent:
        hourly: {interval: 1h, keep: 25},
        daily:
            interval: 1d,
            keep: 10,
jobs:
    test01:
        source:
            type: ceph
            pool: test
            image: test01.root
        schedule: default
"""
"""The kinds of mistake that the examples of backy 2 have: commas at the ends, and schedules and types that are none."""


def test_the_mistakes_of_old_examples_are_told(problems) -> None:
    assert problems(OLD_EXAMPLE)[0].startswith("line 7: not YAML: look for a quote")
    comma = "the comma at its end belongs to the value"
    assert problems(OLD_EXAMPLE.replace("25},", "25}")) == [
        f"line 4: global.worker-limit: expected a whole number, got '2,'; {comma}",
        f"line 9: schedules.frequent.daily.interval: '1d,' is no duration; {EXPECTED_DURATION}; {comma}",
        f"line 10: schedules.frequent.daily.keep: expected a whole number, got '10,'; {comma}",
        "line 17: jobs.test01.schedule: no schedule 'default'; there are: frequent",
    ]


words = st.sampled_from(
    ["global", "schedules", "jobs", "daily", "interval", "keep", "1d", "source", "type", "schedule"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_whatever_is_written_is_a_configuration_or_its_problems(
    tmp_path_factory: pytest.TempPathFactory, content: object
) -> None:
    import yaml

    path = tmp_path_factory.mktemp("configuration") / "backy.conf"
    path.write_text(yaml.safe_dump(content))
    with suppress(ConfigurationError):
        load(path)
