from __future__ import annotations

from pathlib import Path

import pytest

from backy.scheduler import DEFAULT_CONFIGURATION

KEYS = [
    "source",
    "disks",
    "pull",
    "tags",
    "sla",
    "rate",
    "schedule",
    "moment",
    "attachments",
    "keep",
    "storage",
    "verifier",
    "expire",
    "time-limit",
    "standstill",
    "max-size",
    "reserve",
    "quarantine",
    "copies",
    "scrub",
    "drill",
    "hours",
    "time-zone",
]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "backy.conf"
    (tmp_path / "srv").mkdir()
    path.write_text(
        f"global: {{base-dir: {tmp_path}/srv}}\n"
        "schedules:\n"
        "  default: {daily: {interval: 1d, keep: 7}}\n"
        "jobs:\n"
        "  sound: {source: {type: file, filename: /x.img}, schedule: default}\n"
        "  sampled: {source: {type: file, filename: /y.img}, schedule: default, verifier: {type: sample, percent: 5}}\n"
    )
    return path


def add(conf: Path, *jobs: str) -> None:
    with conf.open("a") as stream:
        stream.writelines(f"  {job}\n" for job in jobs)


def test_a_sound_configuration_is_counted(backy, conf: Path) -> None:
    done = backy("check-config", "-c", conf)
    assert (done.code, done.out, done.err) == (0, f"{conf} is sound: 2 jobs, 1 schedule\n", "")


@pytest.mark.parametrize(
    "text",
    [
        "  a: {source: {type: file, filename: /x, backend: cowfile}, schedule: default}\n",
        "  a: {source: {type: file, filename: /x, cow: true}, schedule: default}\n",
        "  a: {source: {type: ceph, pool: p, image: i}, schedule: default}\n",
        "schedules: {default: {daily: {interval: 1d, keep: 0}}}\n",
        "api: {}\n",
    ],
)
def test_a_file_of_backy_2_gets_a_hint(text, backy, conf: Path) -> None:
    with conf.open("a") as stream:
        stream.write(text)

    done = backy("check-config", "-c", conf)

    assert done.code == 1
    assert done.err.endswith(f"; 'backy upgrade --rewrite {conf}' makes it one of backy 3\n")


def test_all_problems_are_told_at_once(backy, conf: Path) -> None:
    add(
        conf,
        "a: {source: {type: file}, schedule: defalt}",
        "b: {source: {}, schedule: default, verifyer: full}",
        "c: {source: {type: fiel}, schedule: default}",
        "d: {source: {filename: /x}, schedule: default}",
    )
    done = backy("check-config", "--config", conf)

    assert done.code == 1
    *lines, unknown, untyped = done.out.splitlines()
    assert lines == [
        f"{conf}:7: jobs.a: source: the key 'filename' is missing",
        f"{conf}:7: jobs.a.schedule: no schedule 'defalt'; did you mean 'default'? there are: default",
        f"{conf}:8: jobs.b.source: the key 'type' is missing; it names the plugin, as in 'type: file'",
        f"{conf}:8: jobs.b.verifyer: unknown key; did you mean 'verifier'? there are: {', '.join(KEYS)}",
    ]
    assert unknown.startswith(f"{conf}:9: jobs.c: no source 'fiel'; did you mean 'file'? installed: ")
    assert untyped == f"{conf}:10: jobs.d.source: the key 'type' is missing; it names the plugin, as in 'type: file'"
    assert done.err == f"Error: {conf} has 6 problems\n"


def test_what_plugins_say_is_told_for_each_job(backy, distribution, conf: Path) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, "raise ImportError('no drive')")
    distribution(
        "mad",
        {"backy.storages": ["mad"]},
        """
        from backy.hookspecs import hookimpl
        @hookimpl
        def backy_storage(config): raise KeyError("hat")
        """,
    )
    add(
        conf,
        "one: {source: {type: tape}, schedule: default}",
        "two: {source: {type: fiel}, schedule: default}",
        "three: {source: {type: file, filename: x.img}, schedule: default, storage: mad, verifier: {type: none, x: 1}}",
    )
    done = backy("check-config", "-c", conf)

    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{conf}:{line}" for line in (7, 8, 9, 9, 9)]
    assert "jobs.one: source 'tape' of acme 1.0 is broken: ImportError: no drive" in lines[0]
    assert "jobs.two: no source 'fiel'; did you mean 'file'? installed: " in lines[1]
    assert "tape; 'backy plugins --check' tells which are broken" in lines[1]
    assert "jobs.three: source.filename: 'x.img' is no absolute path" in lines[2]
    assert "jobs.three: storage 'mad' of mad 1.0 is broken: hook backy_storage failed with KeyError: 'hat'" in lines[3]
    assert "jobs.three: verifier.x: unknown key; there are: type" in lines[4]
    assert done.err == f"Error: {conf} has 5 problems\n"


def test_a_missing_file_is_told(backy, tmp_path: Path) -> None:
    done = backy("check-config", "-c", tmp_path / "none.conf")
    assert done.code == 1
    assert done.out == f"{tmp_path}/none.conf: can not be read: No such file or directory\n"


def test_the_configuration_is_where_it_was_in_backy_2() -> None:
    assert Path("/etc/backy.conf") == DEFAULT_CONFIGURATION
