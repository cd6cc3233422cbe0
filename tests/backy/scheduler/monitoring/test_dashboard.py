"""The dashboard of docs/examples can be put into any Grafana, and each of its panels shows something."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backy.repository.journal import Head
from backy.scheduler.monitoring.metrics import render
from backy.scheduler.monitoring.status import DiskStatus
from tests.prometheus import DASHBOARD, EPOCH, promtool, series, unit_tests

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OURS = {"instance": "backup1", "job": "vm1|odd.*"}
"""What is chosen of the variables: Grafana makes regular expressions of it."""


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the queries, with the titles of their panels."""
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target) for target in panel.get("targets", ()))


def test_it_depends_on_no_other_grafana(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 38
    assert not dashboard.keys() & {"id", "uid", "__inputs"}
    assert set(re.findall(r'"uid": "([^"]*)"', DASHBOARD.read_text())) == {SOURCE["uid"]}
    datasource, *others = dashboard["templating"]["list"]
    assert (datasource["name"], datasource["type"], datasource["query"]) == ("datasource", "datasource", "prometheus")
    assert {variable["name"] for variable in others} == set(OURS)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target for _, target in targets(dashboard)]
    assert [one["datasource"] for one in [*others, *panels, *queries]].count(SOURCE) == len(
        [*others, *panels, *queries]
    )


def test_no_panel_lies_upon_another(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(places)) == len(places)
    assert {x for x, _ in places} == set(range(24))


def test_columns_have_the_names_that_are_shown(dashboard: dict[str, Any]) -> None:
    for panel in (panel for panel in dashboard["panels"] if panel["type"] == "table"):
        names = panel["transformations"][1]["options"]["renameByName"]
        assert {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]} <= set(names.values())
        columns = {name for name in names if name.startswith("Value #")}
        # of one query, Grafana calls it 'Value'
        queries = panel["targets"]
        assert columns == ({f"Value #{target['refId']}" for target in queries} if len(queries) > 1 else set())


def test_each_query_finds_something(dashboard: dict[str, Any], status: Callable, tmp_path: Path) -> None:
    sizes = {"image": 10, "changed": 2, "stored": 3, "occupied": 40, "shared": 30, "max_size": 50}
    late = {"failures": 1, "sla_overdue": 5.0, "head": Head("kfVJ2p", 7, "a" * 64)}
    late |= {"drilled": EPOCH, "first_sign": 8.0, "restore_seconds": 60.0}
    disk = DiskStatus(place="/srv", size=6, free=7, growth=8)
    pace = timedelta(minutes=10)
    jobs = {"vm1": sizes | late, 'odd "\\ $job {{ one\n': sizes | late}
    texts = [render(status(jobs, disk=disk, written=EPOCH + number * pace, started=EPOCH)) for number in range(3)]
    asked = [(title, filled(target["expr"])) for title, target in targets(dashboard)]
    found = {
        "interval": "10m",
        "input_series": series(texts),
        "promql_expr_test": [
            {"expr": f"count({expr}) > bool 0", "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 1}]}
            for _, expr in asked
        ],
    }
    done = promtool("test", "rules", unit_tests(tmp_path / "queries", [found]))
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout
    # without variables nothing could be chosen
    assert [expr for _, expr in asked if "instance=~" not in expr] == []
    labels = set(
        itertools.chain(*(re.findall(r"{{(\w+)}}", one.get("legendFormat", "")) for _, one in targets(dashboard)))
    )
    assert labels == {"instance", "job", "pool"}


def filled(query: str) -> str:
    """Return a query with the values of all variables."""
    found = re.sub(r"\$(\w+)", lambda name: OURS[name[1]], query)
    assert "$" not in found
    return found
