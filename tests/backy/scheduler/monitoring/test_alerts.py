"""The alerts of docs/examples fire on what the scheduler writes when it should wake somebody, and then only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import msgspec
import pytest
import yaml

from backy.repository.journal import Head
from backy.scheduler.monitoring.metrics import render
from backy.scheduler.monitoring.status import DiskStatus
from tests.prometheus import DASHBOARD, EPOCH, METRIC, RULES, dishonoured, labelled, promtool, series, unit_tests

PACE = timedelta(minutes=10)
LENGTH = timedelta(hours=2)
DAY = timedelta(days=1)
GIB = 2**30
ODD = 'odd "\\ {{ $value }} |\n'
JOB = "{{ or $labels.exported_job $labels.job }}"
"""What rules have for the name of a job, wherever Prometheus keeps it."""
Keys = Mapping[str, Any] | Callable[[datetime], Mapping[str, Any]]
"""What is different from a status in which all is well, at each time or by the time."""
ALL_WELL: Keys = {}


class Case(NamedTuple):
    """What makes an alert fire, and what it says in short."""

    alert: str
    summary: str
    job: Keys = ALL_WELL
    general: Keys = ALL_WELL
    labels: Mapping[str, str] | None = None
    """Those of the alert, besides `instance`; None for `job`."""
    name: str = "vm1"


def disk(free: int, growth: int) -> DiskStatus:
    return DiskStatus(place="/srv/backy", size=100 * GIB, free=free, growth=growth)


def journal(number: int, line: str = "") -> dict[str, Head]:
    return {"head": Head("kfVJ2p", number, line or f"{number:064x}")}


def of_server(alert: str, summary: str, **general: Any) -> Case:
    return Case(alert, summary, general=general, labels={})


CASES = [
    Case("BackyJobLate", "vm1 is behind its SLA by 1h 30m 0s", {"sla_overdue": 5400.0}),
    Case("BackyJobLate", "vm1/scrub is behind its SLA by 1h 30m 0s", {"sla_overdue": 5400.0}, name="vm1/scrub"),
    Case("BackyJobFailing", "vm1 failed 3 times in a row", {"failures": 3}),
    Case("BackyJobFailing", "vm1/offsite failed 3 times in a row", {"failures": 3}, name="vm1/offsite"),
    Case("BackyJobFailing", f"{ODD} failed 7 times in a row", {"failures": 7}, name=ODD),
    Case("BackyJobDiskFull", "vm1 is not backed up, as a disk is full", {"full": True}),
    Case("BackyRepositoryNearMaxSize", "vm1 takes 9GiB of its max-size", {"occupied": 9 * GIB, "max_size": 10 * GIB}),
    Case("BackyJournalFindings", "Somebody else than backy changed revisions of vm1: 2 findings",
         {"tampering": ("a", "b")}),
    Case("BackyRevisionsWrong", "1 revisions of vm1 are wrong: the source hid a change", {"wrong": 1}),
    Case("BackyRevisionsDistrusted", "1 revisions of vm1 are distrusted", {"distrusted": 1}),
    Case("BackyQuarantineReports", "vm1 has 4 reports of damage or differences", {"quarantine_reports": 4}),
    Case(
        "BackyComparisonOld",
        "vm1 was not all compared with its source for 121d 0h 0m 0s",
        lambda now: {"compared_since": now - 121 * DAY},
    ),
    Case(
        "BackyJournalShortened",
        "The journal of vm1 had more than its 3 lines",
        lambda now: journal(40 if now < EPOCH + LENGTH / 2 else 3),
        labels={"job": "vm1", "journal": "kfVJ2p"},
    ),
    Case(
        "BackyJournalRewritten",
        "Line 41 of the journal of vm1 is not what it was",
        lambda now: journal(41, "a" * 64 if now < EPOCH + LENGTH / 2 else "b" * 64),
        labels={"job": "vm1", "journal": "kfVJ2p", "line": "41"},
    ),
    of_server("BackyConfigurationNotInForce", "A newer configuration of backy on backup1 is wrong and not in force",
              configuration_error="backy.conf:3: what is this?"),
    of_server("BackyPluginsBroken", "2 plugins of backy on backup1 can not be loaded", plugins=("x: why", "y: why")),
    of_server("BackySchedulerProblems", "The scheduler of backy on backup1 has 1 problems", problems=("no port",)),
    of_server("BackyNoJobs", "The scheduler of backy on backup1 has no jobs", jobs=()),
    of_server("BackyDiskNearlyFull", "The disk of backup1 has only 1GiB left for backups", disk=disk(GIB, 0)),
    of_server("BackyDiskFullWithinAWeek", "The disk of backup1 has 5GiB left, and took more within a week",
              disk=disk(5 * GIB, 6 * GIB)),
    Case(
        "BackySchedulerSilent",
        "What backy on backup1 wrote is 1h 0m 0s old, or as much ahead of the clock",
        general=lambda now: {"written": min(now, EPOCH + LENGTH - timedelta(hours=1))},
        labels={},
    ),
    Case(
        "BackySchedulerSilent",
        "What backy on backup1 wrote is 10m 0s old, or as much ahead of the clock",
        general=lambda now: {"written": now + timedelta(minutes=10)},
        labels={},
    ),
    Case(
        "BackySchedulerRestarts",
        "The scheduler of backy on backup1 was started 6 times within an hour",
        general=lambda now: {"started": now},
        labels={},
    ),
]  # fmt: skip
NEVER_COMPARED = Case(
    "BackyNeverCompared", "A part of vm1 was never compared with its source", {"compared_since": None}
)
NEARLY = Case(
    "",
    "",
    lambda now: {
        "failures": 2,
        "occupied": 89,
        "max_size": 100,
        "compared_since": now - 119 * DAY,
        **journal(int(now.timestamp()) // 1000 + 1),
    },
    lambda now: {"written": now - timedelta(minutes=5), "disk": disk(3 * GIB, 2 * GIB)},
)
"""What is worth a look, and nobody is woken for."""


@pytest.fixture(scope="module")
def scraped(status: Callable) -> Callable[..., list[str]]:
    """Let the scheduler write its metrics at a pace, as `scraped(case)`."""

    def write(case: Case, now: datetime) -> str:
        job, general = [keys(now) if callable(keys) else keys for keys in (case.job, case.general)]
        # what Prometheus knows of a job that pushes, or reads all: not what is in the repository
        beside = {"revisions": 0, "last_time": None, "last_duration": None, "compared_since": None}
        usual = {"last_time": now, "compared_since": now, "image": GIB, "changed": 5, "stored": 4, "occupied": GIB}
        jobs = dict.fromkeys(("vm1/offsite", "vm1/scrub"), beside)
        jobs |= {"vm1": usual | journal(1), "vm2": usual | {"max_size": 2 * GIB}}
        jobs[case.name] = jobs.get(case.name, usual) | job
        found = status(jobs, written=now, started=EPOCH, disk=disk(40 * GIB, GIB))
        return render(msgspec.structs.replace(found, **general))

    def scrape(case: Case, pace: timedelta = PACE, length: timedelta = LENGTH) -> list[str]:
        return [write(case, EPOCH + pace * number) for number in range(length // pace + 1)]

    return scrape


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, Any]]:
    """The rules by their names."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert len(found) == sum(len(group["rules"]) for group in groups)
    return found


class Expected(NamedTuple):
    """An alert, with all its labels and texts."""

    name: str
    labels: dict[str, str]
    annotations: dict[str, str]

    @classmethod
    def of(cls, case: Case, rule: Mapping[str, Any], **labels: str) -> Expected:
        """Return what a rule makes of a case, whose alert has these labels."""
        description = rule["annotations"]["description"].replace(JOB, case.name)
        return cls(case.alert, rule["labels"] | labels, {"summary": case.summary, "description": description})

    def test(self, when: str) -> dict[str, Any]:
        wanted = {"exp_labels": self.labels, "exp_annotations": self.annotations}
        return {"eval_time": when, "alertname": self.name, "exp_alerts": [wanted]}

    def sample(self) -> dict[str, Any]:
        return {"labels": labelled("ALERTS", alertname=self.name, alertstate="firing", **self.labels), "value": 1}


def group(name: str, found: list[dict[str, str]], *expected: Expected, pace: str = "10m", when: str = "2h") -> dict:
    """Return a test: these alerts fire then, with their texts, and no other one."""
    firing = {"expr": 'ALERTS{alertstate="firing"}', "eval_time": when}
    return {
        "name": name,
        "interval": pace,
        "input_series": found,
        "alert_rule_test": [one.test(when) for one in expected],
        "promql_expr_test": [firing | {"exp_samples": [one.sample() for one in expected]}],
    }


def test_each_rule_fires_when_it_should_and_alone(scraped: Callable, rules: dict, tmp_path: Path) -> None:
    groups = [group("all is well", series(scraped(Case("", "")))), group("nearly", series(scraped(NEARLY)))]
    for case in CASES:
        labels = {"job": case.name} if case.labels is None else case.labels
        expected = Expected.of(case, rules[case.alert], instance="backup1", **labels)
        groups.append(group(case.summary, series(scraped(case)), expected))
        if "job" in labels:
            elsewhere = {"job": "node", **{"exported_job" if key == "job" else key: labels[key] for key in labels}}
            expected = Expected.of(case, rules[case.alert], instance="backup1", **elsewhere)
            groups.append(group(f"{case.summary}, not honoured", dishonoured(series(scraped(case))), expected))
    # one of two servers gives no metrics any more, and there never was one
    well = scraped(Case("", ""))
    gone = Case("BackyMetricsMissing", "There are no metrics of backy from backup1")
    expected = Expected.of(gone, rules[gone.alert], instance="backup1")
    half = [*well[: len(well) // 2], *[None] * (len(well) // 2 + 1)]
    groups.append(group("gone", [*series(half), *series(well, "backup2")], expected))
    never = gone._replace(summary="There are no metrics of backy")
    groups.append(group("none", [], Expected.of(never, rules[gone.alert])))
    long = series(scraped(NEVER_COMPARED, DAY, 121 * DAY))
    expected = Expected.of(NEVER_COMPARED, rules[NEVER_COMPARED.alert], instance="backup1", job="vm1")
    late = group("never compared", long, expected, pace="1d", when="121d")
    late["promql_expr_test"].append({**late["promql_expr_test"][0], "eval_time": "119d", "exp_samples": []})

    files = [unit_tests(tmp_path / "hours", groups), unit_tests(tmp_path / "months", [late], "1d")]
    done = promtool("test", "rules", *files)

    assert (done.returncode, done.stdout.count("SUCCESS")) == (0, 2), done.stdout
    assert {case.alert for case in [*CASES, gone, NEVER_COMPARED]} == set(rules)


def test_an_alert_that_does_not_fire_or_says_something_else_is_noticed(
    scraped: Callable, rules: dict, tmp_path: Path
) -> None:
    case = CASES[0]
    right = Expected.of(case, rules[case.alert], instance="backup1", job="vm1")
    other = right._replace(annotations={**right.annotations, "summary": "vm1 is well"})
    late, well = series(scraped(case)), series(scraped(Case("", "")))
    wrong = [group("silent", well, right), group("too many", late), group("another text", late, other)]
    done = promtool("test", "rules", unit_tests(tmp_path / "wrong", wrong))
    assert done.returncode != 0
    assert [part in done.stdout for part in ("name: silent,", "exp: nil", "name: another text,")] == [True] * 3


def test_each_rule_says_how_bad_it_is_and_which_command_helps(rules: dict) -> None:
    page = (RULES.parents[1] / "reference/cli.md").read_text()
    for name, rule in rules.items():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        description = rule["annotations"]["description"]
        commands = re.findall(r"`backy (?:-b DIR )?([^`]+)`", description)
        assert commands, name
        for words in (command.split() for command in commands):
            assert f"\n## backy {words[0]}\n" in page
            section = page.partition(f"\n## backy {words[0]}\n")[2].partition("\n## ")[0]
            # options, and commands of commands
            assert all(f"`{word}`" in section for word in words[1:] if word.startswith("-")), (name, words)
            assert words[0] not in {"reports", "tags"} or f"\n### backy {words[0]} {words[1]}\n" in section
        for page_named in re.findall(r"docs/\S+\.md", description):
            assert (RULES.parents[2] / page_named).exists()


def test_the_page_shows_a_configuration_that_prometheus_takes(tmp_path: Path) -> None:
    page = (RULES.parents[1] / "how-to/monitor.md").read_text()
    (block,) = re.findall(r"^ *```yaml\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(dedent(block).replace("/etc/prometheus/backy.yaml", str(RULES)))
    done = promtool("check", "config", configuration)
    assert (done.returncode, "1 rule files found" in done.stdout) == (0, True), done.stdout


def test_each_metric_is_used_and_each_that_is_used_is_written(scraped: Callable, rules: dict) -> None:
    (written, *_) = scraped(Case("", "", {"max_size": GIB}))
    names = set(re.findall(r"^# TYPE (\S+) gauge$", written, re.MULTILINE))
    watched = {name for rule in rules.values() for name in METRIC.findall(rule["expr"])}
    assert watched | set(METRIC.findall(DASHBOARD.read_text())) == names
