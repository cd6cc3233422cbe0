"""Wrong configurations: each problem says what is wrong, where, and what to write instead, in words of our own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

GLOBAL = "global: {base-dir: HERE}\n"
SCHEDULES = "schedules: {default: {daily: {interval: 1d, keep: 7}}}\n"
SOURCE = "source: {type: file, filename: HERE/disk.img}"
JOBS = f"jobs: {{a: {{schedule: default, {SOURCE}}}}}\n"


def job(text: str) -> str:
    return f"{GLOBAL}{SCHEDULES}jobs: {{a: {{{text}}}}}\n"


def schedule(text: str) -> str:
    return f"{GLOBAL}schedules: {{default: {{{text}}}}}\n{JOBS}"


def general(text: str) -> str:
    return f"global: {{{text}}}\n{SCHEDULES}{JOBS}"


TABLE: list[tuple[str | bytes, str]] = [
    ("global:\n\tbase-dir: HERE\n", "2: not YAML: a tab; set lines in by blanks"),
    ("global:\n  base-dir:HERE\n" + SCHEDULES + JOBS, "1: global: expected keys and values, got 'base-dir:"),
    (GLOBAL + SCHEDULES + f"jobs:\n  a: {{{SOURCE}}}\n  a: {{{SOURCE}}}\n", "5: a: is there already, in line 4"),
    ("[global]\nbase-dir = HERE\n", "2: not YAML: this is the format of INI; write 'global:', and below it"),
    ("", "1: expected keys and values, got nothing"),
    ("- a\n", "1: expected keys and values, got ['a']"),
    ("global: {base-dir: 'HERE}\n", "2: not YAML: look for a quote, a bracket"),
    (GLOBAL + SCHEDULES + "jobs: {a: {schedule: default\n", "4: not YAML: look for a quote, a bracket"),
    ("global: *nothing\n", "1: not YAML: look for a quote, a bracket, a colon, or '&', '*', '!'"),
    ("global: !!python/object:os.system {base-dir: HERE}\n", "1: not YAML: look for a quote"),
    (b"global: {base-dir: HERE\xe9}\n", "1: not YAML: it has characters that are not UTF-8; save the file as UTF-8"),
    (b"global: {base-dir: HERE\0}\n", "1: not YAML: it has control characters; remove them"),
    (GLOBAL + SCHEDULES, "1: the section 'jobs' is missing; it has the jobs by their names, or {}"),
    (GLOBAL + JOBS, "1: the section 'schedules' is missing; it has at least one schedule"),
    (GLOBAL + SCHEDULES + JOBS + "jbos: {}\n", "4: jbos: unknown key; did you mean 'jobs'? there are: global"),
    (
        schedule("daily: {interval: 1d, keep: 0}"),
        "2: schedules.default.daily.keep: expected a whole number of at least 1",
    ),
    (
        schedule("daily: {interval: 1 day, keep: 7}"),
        "2: schedules.default.daily.interval: '1 day' is no duration; write",
    ),
    (schedule("daily: {keep: 7}"), "2: schedules.default.daily: the key 'interval' is missing"),
    (schedule("last: {interval: 1d, keep: 7}"), "2: schedules.default.last: 'last' can be no tag: '-r last' means"),
    (job(f"schedule: defalt, {SOURCE}"), "3: jobs.a.schedule: no schedule 'defalt'; did you mean 'default'? there are"),
    (job("schedule: default, source: {type: fiel}"), "3: jobs.a: no source 'fiel'; did you mean 'file'? installed: "),
    (job("schedule: default, source: {filename: /x}"), "3: jobs.a.source: the key 'type' is missing; it names the"),
    (job("schedule: default, source: {type: file}"), "3: jobs.a: source: the key 'filename' is missing"),
    (
        job("schedule: default, source: {type: file, filename: x}"),
        "3: jobs.a: source.filename: 'x' is no absolute path",
    ),
    (job("schedule: default"), "3: jobs.a: the key 'source' is missing: the image to back up, or 'disks' with several"),
    (job(f"schedule: default, {SOURCE}, verifyer: full"), "3: jobs.a.verifyer: unknown key; did you mean 'verifier'?"),
    (
        job(f"schedule: default, {SOURCE}, verifier: {{type: sample, percent: 200}}"),
        "3: jobs.a: verifier.percent: expected a number of at most 100.0, got 200",
    ),
    (GLOBAL + SCHEDULES + f"jobs: {{a/b: {{{SOURCE}}}}}\n", "3: jobs.a/b: a job's name is that of its folder: letters"),
    (general("base-dir: HERE, worker-limit: two"), "1: global.worker-limit: expected a whole number, got 'two'"),
    (
        general("base-dir: HERE, max-size: much"),
        "1: global.max-size: expected a size such as '30G', or bytes, got 'much'",
    ),
    (general("base-dir: HERE, expire: maybe"), "1: global.expire: expected true or false, got 'maybe'"),
    (general("base-dir: srv"), "1: global.base-dir: 'srv' is no absolute path"),
    (general("base-dir: HERE/nowhere"), "1: global.base-dir: there is no folder HERE/nowhere: is its disk mounted?"),
    (
        general("base-dir: HERE, backup-completed-callback: HERE/x"),
        "1: global.backup-completed-callback: there is no pro",
    ),
    (general("base-dir: HERE, telnet-addrs: foo.example"), "1: global.telnet-addrs: 'foo.example' is no IP address"),
]
LIBRARY = re.compile(r"`|token|expected <|constructor|undefined alias|byte string|mapping|scalar|codec|found ")


def test_every_wrong_configuration_is_told_in_our_words(backy: Callable, tmp_path: Path) -> None:
    assert len(TABLE) >= 27
    path, here = tmp_path / "x.conf", str(tmp_path)
    (tmp_path / "disk.img").write_bytes(b"x")
    for content, problem in TABLE:
        written = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(written.replace(b"HERE", here.encode()))
        done = backy("check-config", "-c", path)
        shown = done.out.replace(here, "HERE")
        assert done.code == 1, content
        assert any(line.startswith(f"HERE/x.conf:{problem}") for line in shown.splitlines()), shown
        assert not LIBRARY.search(shown), shown


def test_files_that_can_not_be_read_are_told(backy: Callable, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.conf", "No such file or directory"), (Path("/proc/self/mem"), "")):
        done = backy("check-config", "-c", path)
        assert done.code == 1
        assert done.out.startswith(f"{path}: can not be read: {why}")
    assert backy("check-config", "-c", tmp_path).err.endswith("'-c': write the path of a file, not of a folder\n")
