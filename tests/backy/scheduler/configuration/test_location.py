"""Where a scheduler is to be found: for the daemon itself and for the commands beside it, by the same file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backy.scheduler.configuration import document
from backy.scheduler.configuration.configuration import load
from backy.scheduler.configuration.document import ConfigurationError
from backy.scheduler.configuration.location import load_location

REST = "schedules: {default: {daily: {interval: 3650d, keep: 3}}}\n"
JOB = "vm1: {schedule: default, source: {type: file, filename: &place PLACE}}"
SOUND = {
    "plain": f"global: {{base-dir: PLACE}}\n{REST}jobs: {{{JOB}}}\n",
    "by its other name": f"config: {{base-dir: PLACE}}\n{REST}jobs: {{{JOB}}}\n",
    "merge key": f"global: {{<<: {{base-dir: PLACE}}}}\n{REST}jobs: {{{JOB}}}\n",
    "two merged": f"global: {{<<: [{{base-dir: PLACE}}, {{expire: false}}]}}\n{REST}jobs: {{{JOB}}}\n",
    "alias of a value": f"jobs: {{{JOB}}}\n{REST}global: {{base-dir: *place}}\n",
    "alias of an alias": f"jobs: {{{JOB}, vm2: &job {{schedule: default, source: {{type: x, y: [*place, &b PLACE]}}}}}}"
    f"\n{REST}global: {{base-dir: *b}}\n",
    "merged alias": f"<<: {{global: &global {{base-dir: PLACE}}}}\nglobal: {{<<: *global}}\n{REST}jobs: {{{JOB}}}\n",
    "alias of all": f"<<: {{global: &global {{base-dir: PLACE}}}}\nglobal: *global\n{REST}jobs: {{{JOB}}}\n",
    "merged at the top": f"{REST}jobs: {{{JOB}}}\n<<: {{global: {{base-dir: PLACE}}}}\n",
    "overrides what is merged": f"<<: {{global: {{base-dir: /no}}}}\n{REST}jobs: {{{JOB}}}\n"
    f"global: {{base-dir: PLACE}}\n",
    "a job called global": f"jobs: {{{JOB}, global: {{schedule: default, source: {{type: x, base-dir: /no}}}}}}\n{REST}"
    "global: {storage: {type: x, base-dir: /no}, base-dir: PLACE}\n",
}  # fmt: skip


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_the_commands_look_where_the_daemon_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "backy.conf"
    path.write_text(text.replace("PLACE", "/x"))

    found = load_location(path)

    assert (found.base_dir, found.status_path) == (Path("/x"), Path("/x/status"))
    assert (found.base_dir, found.status_path) == (load(path).settings.base_dir, load(path).settings.status_path)


def test_it_is_found_without_libyaml(tmp_path: Path) -> None:
    (tmp_path / "backy.conf").write_text(SOUND["alias of an alias"].replace("PLACE", "/x"))
    code = (
        "import sys, pathlib, yaml; del yaml.CSafeLoader; "
        "from backy.scheduler.configuration.location import load_location; "
        "print(load_location(pathlib.Path(sys.argv[1])).base_dir)"
    )
    command = [sys.executable, "-c", code, tmp_path / "backy.conf"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "/x\n"


@pytest.mark.parametrize("form", ["merge key", "alias of a value", "merged alias", "merged at the top"])
def test_daemon_check_jobs_and_client_meet(scheduler, eventually, backy, monkeypatch, form: str) -> None:
    text = SOUND[form].replace("PLACE", str(scheduler.base)).replace("{base-dir", "{telnet-addrs: '', base-dir")
    monkeypatch.setattr(scheduler, "write", lambda: scheduler.configuration.write_text(text))
    scheduler.start()
    eventually((scheduler.base / "status").exists)

    assert "OK: 1 job within" in backy("check", "-c", scheduler.configuration).out
    assert backy("jobs", "-c", scheduler.configuration).out.endswith("1 job\n")
    client = backy("client", "-c", scheduler.configuration, "jobs")
    assert (client.code, "vm1" in client.out) == (0, True)


@pytest.mark.parametrize(
    ("content", "base", "status"),
    [
        ("", "/srv/backy", "/srv/backy/status"),
        ("global: {}", "/srv/backy", "/srv/backy/status"),
        ("global:\nconfig:\n", "/srv/backy", "/srv/backy/status"),
        ("global:\n  base-dir: '/x y'\n  status-file: /run/s\n", "/x y", "/run/s"),
        ("global: {base-dir: /x, worker-limit: none, colour: red}", "/x", "/x/status"),
        ("jobs: [*k]\nglobal:\n  base-dir: /x\n", "/x", "/x/status"),
        ("jobs: &j [*k]\nglobal:\n  storage: {type: x, base-dir: /no}\n  base-dir: /x\n", "/x", "/x/status"),
        ("? [a, b]\n: c\nglobal: {base-dir: /x}\n", "/x", "/x/status"),
        ("global:\n  list: [base-dir, /no]\n  base-dir: /x\njobs: [this, is: not {YAML", "/x", "/x/status"),
        ("- global\n- base-dir\n", "/srv/backy", "/srv/backy/status"),
        ("global\n", "/srv/backy", "/srv/backy/status"),
    ],
)
def test_mistakes_elsewhere_do_not_matter(tmp_path: Path, content: str, base: str, status: str) -> None:
    (tmp_path / "backy.conf").write_text(content)
    found = load_location(tmp_path / "backy.conf")
    assert (found.base_dir, found.status_path) == (Path(base), Path(status))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "backy.conf: can not be read: No such file"),
        ("\njobs: [this, is: not {YAML", "backy.conf, line 2: not YAML: "),
        ("global: {base-dir: *nowhere}", "backy.conf, line 1: not YAML: look for a quote"),
        ("global:\n  expire: 7\n  base-dir: x", "backy.conf, line 3: global.base-dir: 'x' is no absolute path$"),
        ("config: 3", "backy.conf, line 1: config: expected keys and values, got 3"),
        ("jobs: &a " + "[" * 9999, "backy.conf, line 1: not YAML: "),
    ],
)
def test_what_can_not_be_found_is_an_error(tmp_path: Path, content: str | None, error: str) -> None:
    if content is not None:
        (tmp_path / "backy.conf").write_text(content)
    with pytest.raises(ConfigurationError, match=error):
        load_location(tmp_path / "backy.conf")


def test_ten_thousand_jobs_are_not_made_to_find_the_scheduler(tmp_path: Path, monkeypatch) -> None:
    jobs = "".join(f"  vm{number}: {{schedule: default, source: {{type: file}}}}\n" for number in range(10_000))
    made = []
    make = document._Loader.construct_mapping
    monkeypatch.setattr(
        document._Loader, "construct_mapping", lambda *given, **more: made.append(1) or make(*given, **more)
    )
    for text in (f"global: {{base-dir: /x}}\njobs:\n{jobs}", f"jobs:\n{jobs}global: {{base-dir: /x}}\n"):
        (tmp_path / "backy.conf").write_text(text)
        assert load_location(tmp_path / "backy.conf").base_dir == Path("/x")
    assert len(made) < 20
