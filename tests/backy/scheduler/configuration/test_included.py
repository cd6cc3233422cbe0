"""A configuration may be in several files, and problems are told with the file that they are in."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest

from backy.scheduler.configuration.configuration import load
from backy.scheduler.configuration.document import ConfigurationError

JOB = "{source: {type: file, filename: /x.img}, schedule: default}"
MAIN = f"include: conf.d/*.yaml\nschedules:\n  default: {{daily: {{interval: 1d, keep: 7}}}}\njobs:\n  main: {JOB}\n"


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration and files beside it, and return its path."""

    def write(main: str, **files: str) -> Path:
        (tmp_path / "conf.d").mkdir(exist_ok=True)
        for name, text in files.items():
            (tmp_path / "conf.d" / f"{name}.yaml").write_text(text)
        (tmp_path / "backy.conf").write_text(main)
        return tmp_path / "backy.conf"

    return write


@pytest.fixture
def problems(write):
    """Return what is said of a configuration that is wrong, without the folder of the files."""

    def problems(main: str, **files: str) -> list[str]:
        path = write(main, **files)
        with pytest.raises(ConfigurationError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
        return [problem.located().replace(f"{path.parent}/", "") for problem in caught.value.problems]

    return problems


def test_schedules_jobs_and_hooks_are_added(write) -> None:
    path = write(
        MAIN,
        one="hooks: {pager: {number: 1}}\nschedules: {hourly: {hourly: {interval: 1h, keep: 3}}}\n",
        two=f"# alone\njobs:\n  web1: {JOB.replace('default', 'hourly')}\n  web2: {JOB}\n",
        three="",
        four="jobs:\n",
    )
    (path.parent / "conf.d/.#two.yaml").symlink_to("nowhere")  # as an editor leaves it
    (path.parent / "conf.d/two.yaml.bak").write_text("jobs: 7")
    found = load(path)

    assert list(found.jobs) == ["main", "web1", "web2"]
    assert list(found.schedules) == ["default", "hourly"]
    assert found.jobs["web1"].schedule["hourly"].interval == timedelta(hours=1)
    assert found.hooks == {"pager": {"number": 1}}


@pytest.mark.parametrize("pattern", ["none/*.yaml", "conf.d/*.yaml", "backy.conf/x", "''", "/none/*/x", "'['"])
def test_a_pattern_may_match_nothing(write, pattern: str) -> None:
    assert list(load(write(MAIN.replace("conf.d/*.yaml", pattern))).jobs) == ["main"]


def test_all_may_be_in_other_files(write) -> None:
    path = write(f"include: '{os.fspath(write('').parent)}/conf.d/*'", jobs=MAIN.partition("\n")[2])

    assert list(load(path).jobs) == ["main"]
    # as if the folder was not mounted: a scheduler that runs would end all backups, and be green
    (path.parent / "conf.d/jobs.yaml").unlink()
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert [problem.message.partition(";")[0] for problem in caught.value.problems] == [
        "the section 'jobs' is missing",
        "the section 'schedules' is missing",
    ]


def test_problems_of_a_file_with_any_name_can_be_written(write) -> None:
    path = write(f"include: conf.d/*\n{MAIN.partition(chr(10))[2]}")
    Path(os.fsdecode(os.fsencode(path.parent) + b"/conf.d/b\xfcro.yaml")).write_text("jobs: {main: 5}")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    (problem,) = caught.value.problems
    for text in (str(caught.value), problem.located()):
        assert "/conf.d/b\\udcfcro.yaml" in text
        assert text.isprintable()


def test_a_name_that_is_there_twice_is_told_with_both_places(problems, tmp_path: Path) -> None:
    two = f"jobs:\n\n  web1: {JOB}\n  main: {JOB}\nschedules:\n  default: {{}}\n"
    assert problems(MAIN, a=f"jobs:\n  web1: {JOB}\n", b=two) == [
        "conf.d/b.yaml:3: jobs.web1: is there already, in conf.d/a.yaml:2",
        "conf.d/b.yaml:4: jobs.main: is there already, in backy.conf:5",
        "conf.d/b.yaml:6: schedules.default: is there already, in backy.conf:3",
    ]


def test_problems_are_told_with_their_file(problems) -> None:
    wrong = JOB.replace("default", "defalt")
    assert problems(
        f"{MAIN}  other: {wrong}\n",
        a=f"jobs:\n  web1: {wrong}\n  web2: {JOB}\n  web2: {JOB}\n",
        b="\0",
        c="global: {base-dir: /x}\nschedules: 5\njobs: {web3: {source: {}, schedule: default}}",
        d="5",
    ) == [
        "backy.conf:6: jobs.other.schedule: no schedule 'defalt'; did you mean 'default'? there are: default",
        "conf.d/a.yaml:2: jobs.web1.schedule: no schedule 'defalt'; did you mean 'default'? there are: default",
        "conf.d/a.yaml:4: web2: is there already, in line 3",
        "conf.d/b.yaml:1: not YAML: it has control characters; remove them",
        "conf.d/c.yaml:1: global: unknown key; there are: hooks, schedules, jobs",
        "conf.d/c.yaml:2: schedules: expected keys and values, got 5",
        "conf.d/c.yaml:3: jobs.web3.source: the key 'type' is missing; it names the plugin, as in 'type: file'",
        "conf.d/d.yaml:1: expected keys and values, got 5",
    ]


@pytest.mark.parametrize("value", ["5", "[a]", "", '"\\0"'])
def test_only_a_pattern_is_taken(problems, value: str) -> None:
    (problem,) = problems(MAIN.replace("conf.d/*.yaml", value))
    assert problem.startswith("backy.conf:1: include: expected a pattern of paths such as 'conf.d/*.yaml', got ")


def test_what_can_not_be_read_is_a_problem(problems, write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(MAIN)
    (tmp_path / "conf.d/folder.yaml").mkdir()
    assert problems(MAIN) == ["conf.d/folder.yaml: can not be read: it is no regular file"]

    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # Also by root, whom no mode keeps out: without this, all jobs of the folder would be gone.
    monkeypatch.setattr("os.scandir", denied)
    assert problems(MAIN)[0] == "backy.conf:1: include: the folder conf.d can not be read: Permission denied"


def test_what_a_job_comes_to_is_told_with_its_places(write, backy, tmp_path: Path) -> None:
    shop = "    verifier: [full, none]\n    keep: {weekly: 9}\n    expire: null\n    quarantine: {size: 1G}\n"
    schedule = "\n  own:\n    weekly: {interval: 7d,\n keep: 4}\n    daily: {interval: 1d, keep: 7}\n"
    shop = f"  shop:\n    source: {{type: file, filename: /x.img}}\n    schedule: own\n{shop}    copies: {{}}\n"
    path = write(f"{MAIN}\nglobal: {{expire: false, trash: 9d}}", shop=f"schedules:{schedule}jobs:\n{shop}")

    done = backy("check-config", "-c", path, "--explain", "shop")

    assert (done.code, done.out.replace(f"{tmp_path}/", "").splitlines()) == (
        0,
        [
            'source: {"type": "file", "filename": "/x.img"}  # conf.d/shop.yaml:8',
            'schedule: "own"  # conf.d/shop.yaml:9',
            'keep: {"weekly": 9}  # conf.d/shop.yaml:11',
            'storage: {"type": "chunked"}  # default',
            'verifier: ["full", "none"]  # conf.d/shop.yaml:10',
            "expire: false  # backy.conf:7",
            'standstill: "1h"  # default',
            "reserve: 1048576  # default",
            'quarantine: {"size": "1G"}  # conf.d/shop.yaml:13',
            "copies: {}  # conf.d/shop.yaml:14",
            'schedule.weekly: {"interval": "1w", "keep": 9}  # conf.d/shop.yaml:3',
            'schedule.daily: {"interval": "1d", "keep": 7}  # conf.d/shop.yaml:5',
        ],
    )
    (first, *_) = json.loads(backy("check-config", "-c", path, "--explain", "shop", "--json").out)["values"]
    assert first == {
        "key": "source",
        "value": {"type": "file", "filename": "/x.img"},
        "from": f"{tmp_path}/conf.d/shop.yaml:8",
    }
    done = backy("check-config", "-c", path, "--explain", "shpo")
    assert (done.code, done.err) == (1, "Error: no job 'shpo'; did you mean 'shop'? there are: main, shop\n")
    write("jobs: 5")
    assert backy("check-config", "-c", path, "--explain", "shop").out.endswith("expected keys and values, got 5\n")


def test_jobs_take_from_global_what_they_lack(write) -> None:
    general = (
        "{schedule: default, keep: {daily: 3, other: 9}, source: {type: file, filename: '/${job}.img'}, tags: [a], "
        "sla: 5h, rate: 1M, moment: {type: program, before: 'freeze ${job}'}, attachments: {x: 'dump ${job}'}, "
        "copies: {far: {to: 'ssh://b/${job}-1'}}, storage: cow}"
    )
    jobs = "\n  web1:\n  web2: {keep: {daily: 5}, pull: '/other/${job}', moment: null}"
    jobs += "\n  web3: {disks: {a: {source: {type: x}}}}"
    found = load(write(f"global: {general}\n{MAIN.partition('jobs:')[0]}jobs:{jobs}")).jobs
    web1, web2 = found["web1"], found["web2"]

    assert (web1.config.source, web2.config.source) == ({"type": "file", "filename": "/web1.img"}, None)
    assert (web1.schedule["daily"].keep, web2.schedule["daily"].keep) == (3, 5)
    assert (web1.config.moment, web2.config.moment) == tuple(
        {"type": "program", "before": f"freeze {name}"} for name in ("web1", "web2")
    )
    assert (web1.config.storage.type, web1.config.attachments) == ("cow", {"x": "dump web1"})
    assert found["web2/far"].copy is not None
    assert found["web2/far"].copy.to == "ssh://b/web2-1"
    assert (web1.copy, found["web3"].verb) == (None, "backup")
    assert web2.copy is not None
    assert (web2.copy.to, web2.copy.rate, web2.copy.sla) == ("/other/web2", 2**20, timedelta(hours=5))


def test_null_is_as_in_global(write) -> None:
    general = "{schedule: default, source: {type: file, filename: '/${job}.img'}, storage: {type: cow, name: '${job}'}}"
    jobs = "{web1: {source: null, rate: null, sla: , tags: }, web2: {disks: null}, web3: {pull: a, source: }}"
    found = load(write(f"global: {general}\n{MAIN.partition('jobs:')[0]}jobs: {jobs}")).jobs
    sources = [found[name].config.source for name in ("web1", "web2", "web3")]
    assert sources == [{"type": "file", "filename": f"/{name}.img"} for name in ("web1", "web2")] + [None]
    # the name that a default gets of each job is no mistake before that
    assert [one.config.storage.folder for one in found.values()] == ["web1", "web2", "web3"]


def test_a_mistake_in_global_is_told_once(problems) -> None:
    general = "{schedule: 5, storag: cow, expire: 7, source: {type: file}}"
    jobs = "{b: {schedule: a}, c: {unknown: , schedule: a}, d: {schedule: }}"
    found = problems(f"global: {general}\nschedules: {{a: {{}}}}\njobs: {jobs}")
    assert [problem.partition("there are")[0] for problem in found] == [
        "backy.conf:1: global.expire: expected true or false, got 7",
        "backy.conf:1: global.schedule: expected text, got a number; text of digits needs quotes",
        "backy.conf:1: global.storag: unknown key; did you mean 'storage'? ",
        "backy.conf:2: schedules.a: has no tag; write one as in 'daily: {interval: 1d, keep: 7}'",
        "backy.conf:3: jobs.c.unknown: unknown key; ",
        "backy.conf:3: jobs.d: the key 'schedule' is missing",
    ]
