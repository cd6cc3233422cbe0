"""The status in the text format of Prometheus, for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from backy.scheduler.monitoring.status import JobStatus, Status


class Metric(NamedTuple):
    """A gauge of each job."""

    help: str
    value: Callable[[JobStatus], float | None]
    """Returns None if the job has no such value."""


JOB_METRICS = {
    "backy_job_sla_overdue_seconds": Metric("How far the job is behind its SLA.", lambda job: job.sla_overdue),
    "backy_job_last_backup_timestamp_seconds": Metric(
        "Start of the newest complete revision.", lambda job: job.last_time.timestamp() if job.last_time else None
    ),
    "backy_job_last_backup_duration_seconds": Metric("How long that took.", lambda job: job.last_duration),
    "backy_job_compared_timestamp_seconds": Metric(
        "Since when all of the newest revision was compared with the source.",
        lambda job: job.compared_since.timestamp() if job.compared_since else None,
    ),
    "backy_job_failures": Metric("Failed runs in a row.", lambda job: job.failures),
    "backy_job_revisions": Metric("Complete revisions.", lambda job: job.revisions),
    "backy_job_quarantine_reports": Metric("Reports of damage or differences.", lambda job: job.quarantine_reports),
    "backy_job_image_bytes": Metric("Size of the image in the newest revision.", lambda job: job.image),
    "backy_job_last_changed_bytes": Metric("What differs in it from the revision before.", lambda job: job.changed),
    "backy_job_last_stored_bytes": Metric("What was stored for it.", lambda job: job.stored),
    "backy_job_repository_bytes": Metric("What the repository took after the last run.", lambda job: job.occupied),
    "backy_job_max_bytes": Metric("What the repository may take.", lambda job: job.max_size),
    "backy_job_disk_full": Metric("1 if the last backup failed as a disk is full.", lambda job: int(job.full)),
    "backy_job_distrusted_revisions": Metric("Revisions that are distrusted.", lambda job: job.distrusted),
    "backy_job_journal_findings": Metric("What contradicts the journal.", lambda job: len(job.tampering)),
    "backy_job_wrong_revisions": Metric("Revisions of which the source hid a change.", lambda job: job.wrong),
}
"""The metrics of each job, with the label `job`."""


HEADS = "backy_job_journal_lines"
"""The metric of each job that has the last line of its journal in labels, by which it is a witness."""


def render(status: Status) -> str:
    """Return the content of the metrics file."""
    return "".join(f"{line}\n" for line in _lines(status))


def _lines(status: Status) -> Iterator[str]:
    yield from _gauge("backy_scheduler_info", "1, with the version as a label.")
    yield f'backy_scheduler_info{{version="{_escaped(status.version)}"}} 1'
    scheduler = {
        "backy_scheduler_start_timestamp_seconds": ("When the scheduler was started.", status.started.timestamp()),
        "backy_scheduler_written_timestamp_seconds": ("When this file was written.", status.written.timestamp()),
        "backy_scheduler_configuration_ok": (
            "0 while a newer configuration is wrong and so not in force.",
            int(status.configuration_error is None),
        ),
        "backy_scheduler_broken_plugins": ("Plugins that can not be loaded.", len(status.plugins)),
        "backy_scheduler_problems": ("Things that the scheduler itself can not do.", len(status.problems)),
        "backy_jobs": ("Jobs in the configuration.", len(status.jobs)),
    }
    if status.disk:
        scheduler |= {
            "backy_disk_size_bytes": ("Size of the disk with the base directory.", status.disk.size),
            "backy_disk_free_bytes": ("What is left of it.", status.disk.free),
            "backy_disk_growth_bytes": ("What was taken of it within the last week.", status.disk.growth),
        }
    for name, (text, value) in scheduler.items():
        yield from _gauge(name, text)
        yield f"{name} {value}"
    # The last word of a name is the field of `PoolStatus`.
    for name, text in POOL_METRICS.items():
        yield from _gauge(name, text)
        for pool, slots in status.pools.items():
            yield f'{name}{{pool="{pool}"}} {getattr(slots, name.rpartition("_")[2])}'
    # All samples of a metric have to follow its heading, so the loop over the jobs is the inner one.
    labels = [f'{{job="{_escaped(job.job)}"}}' for job in status.jobs]
    for name, metric in JOB_METRICS.items():
        yield from _gauge(name, metric.help)
        for label, job in zip(labels, status.jobs, strict=True):
            if (figure := metric.value(job)) is not None:
                yield f"{name}{label} {figure}"
    yield from _gauge(HEADS, "Lines of the journal, with its id and the hash of the last one.")
    for job in status.jobs:
        if job.head:
            about = f'job="{_escaped(job.job)}",journal="{_escaped(job.head.job)}",hash="{job.head.hash}"'
            yield f"{HEADS}{{{about}}} {job.head.number}"


POOL_METRICS = {
    "backy_pool_running": "Jobs that run.",
    "backy_pool_queued": "Jobs that wait for a slot.",
    "backy_pool_limit": "Slots.",
}
"""The metrics of each pool, with the label `pool`."""


def _gauge(name: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"


def _escaped(label: str) -> str:
    # The order matters: the other two add backslashes.
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
