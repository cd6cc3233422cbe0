"""Prometheus without a server: promtool evaluates rules and queries on what the scheduler writes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
RULES = EXAMPLES / "alerts.yaml"
DASHBOARD = EXAMPLES / "dashboard.json"
EPOCH = datetime.fromtimestamp(0, UTC)
"""When each of promtool's tests begins."""
METRIC = re.compile(r"\bbacky_\w+\b")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Call promtool; what it prints comes together."""
    if shutil.which("promtool") is None:
        pytest.skip("NOT TESTED: alerts and dashboard, for there is no promtool; install Debian's package prometheus")
    command = ["promtool", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def unit_tests(path: Path, tests: Sequence[Mapping[str, Any]], pace: str = "10m") -> Path:
    """Write a file of tests for promtool, which evaluates all rules at this pace."""
    content = {"rule_files": [str(RULES)], "evaluation_interval": pace, "tests": list(tests)}
    path.write_text(json.dumps(content))  # which is YAML, and made in a tenth of the time
    return path


def series(texts: Sequence[str | None], instance: str = "backup1") -> list[dict[str, str]]:
    """Return what Prometheus has after it read these texts of a server one after the other; None cannot be read.

    It has the job's name as `job`, as with `honor_labels: true`.
    """
    found: dict[str, list[str]] = {}
    for number, text in enumerate(texts):
        lines = [line for line in (text or "").splitlines() if not line.startswith("#")]
        for name, _, value in (line.rpartition(" ") for line in lines):
            found.setdefault(labelled(name, instance=instance), ["_"] * number).append(value)
        for values in found.values():
            # as Prometheus marks what was there before
            values.extend(["stale"] * (number + 1 - len(values)))
    return [{"series": name, "values": " ".join(values)} for name, values in found.items()]


def dishonoured(found: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return series as Prometheus has them without `honor_labels`: `job` is what it calls the exporter."""
    renamed = [{**one, "series": one["series"].replace(',job="', ',exported_job="')} for one in found]
    return [{**one, "series": labelled(one["series"], job="node")} for one in renamed]


def labelled(name: str, **labels: str) -> str:
    """Return the name of a series with these labels before those that it has."""
    metric, _, rest = name.partition("{")
    # strings are those of JSON
    ours = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
    return f"{metric}{{{ours},{rest}" if rest not in ("", "}") else f"{metric}{{{ours}}}"
