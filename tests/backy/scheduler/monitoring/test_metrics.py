from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backy.scheduler.monitoring.metrics import JOB_METRICS, render


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
    assert set(parsed(render(status({"vm1": {}})))) >= set(JOB_METRICS)
