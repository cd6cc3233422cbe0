from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backy.scheduler.monitoring.metrics import JOB_METRICS, render
from backy.scheduler.monitoring.status import DiskStatus


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Read metrics as Prometheus does: values by labels, by name."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        found[family.name] = {tuple(sample.labels.values()): sample.value for sample in family.samples}
    return found


def test_prometheus_reads_what_is_written(status) -> None:
    jobs = {"vm1": {"failures": 3, "sla_overdue": 1.5}, 'odd "\\ one\n': {"last_time": None, "last_duration": None}}
    found = parsed(render(status(jobs, plugins=("x",), configuration_error="y")))
    assert found["backy_scheduler_info"] == {("3.0.0",): 1}
    assert found["backy_jobs"] == {(): 2}
    assert found["backy_scheduler_configuration_ok"] == {(): 0}
    assert found["backy_scheduler_broken_plugins"] == {(): 1}
    assert found["backy_pool_queued"] == {("fast",): 2, ("slow",): 0}
    assert found["backy_job_failures"] == {("vm1",): 3, ('odd "\\ one\n',): 0}
    assert found["backy_job_sla_overdue_seconds"][("vm1",)] == 1.5
    assert set(found["backy_job_last_backup_timestamp_seconds"]) == {("vm1",)}
    assert set(found["backy_job_last_backup_duration_seconds"]) == {("vm1",)}
    assert found["backy_job_last_backup_timestamp_seconds"][("vm1",)] == pytest.approx(1767225600)


def test_every_metric_of_jobs_is_there(status) -> None:
    sizes = {"image": 1, "changed": 2, "stored": 3, "occupied": 4, "max_size": 5, "shared": 6}
    disk = DiskStatus(place="/srv", size=6, free=7, growth=8)
    found = parsed(render(status({"vm1": sizes}, disk=disk)))

    assert set(found) >= set(JOB_METRICS)
    names = ("image", "last_changed", "last_stored", "repository", "max", "shared")
    assert [found[f"backy_job_{name}_bytes"] for name in names] == [{("vm1",): number} for number in range(1, 7)]
    assert [found[f"backy_disk_{name}_bytes"][()] for name in ("size", "free", "growth")] == [6, 7, 8]
