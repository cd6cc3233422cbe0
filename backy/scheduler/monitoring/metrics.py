"""The status in the text format of Prometheus, for node_exporter's textfile collector."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from backy.scheduler.monitoring.status import Status

JOB_METRICS = {
    "backy_job_sla_overdue_seconds": ("sla_overdue", "How far the job is behind its SLA."),
    "backy_job_last_backup_timestamp_seconds": ("last_time", "Start of the newest complete revision."),
    "backy_job_last_backup_duration_seconds": ("last_duration", "How long that took."),
    "backy_job_compared_timestamp_seconds": ("compared_since", "Since when all of the newest revision was compared."),
    "backy_job_failures": ("failures", "Failed runs in a row."),
    "backy_job_revisions": ("revisions", "Complete revisions."),
    "backy_job_quarantine_reports": ("quarantine_reports", "Reports of damage or differences."),
    "backy_job_image_bytes": ("image", "Size of the image in the newest revision."),
    "backy_job_last_changed_bytes": ("changed", "What differs in it from the revision before."),
    "backy_job_last_stored_bytes": ("stored", "What was stored for it."),
    "backy_job_repository_bytes": ("occupied", "What the repository took after the last run."),
    "backy_job_shared_bytes": ("shared", "What of it the pool has, too."),
    "backy_job_drill_timestamp_seconds": ("drilled", "When the last drill began."),
    "backy_job_drill_first_sign_seconds": ("first_sign", "How long it took to the first sign of life."),
    "backy_job_restore_seconds": ("restore_seconds", "In what time a restore would read all data."),
    "backy_job_max_bytes": ("max_size", "What the repository may take."),
    "backy_job_disk_full": ("full", "1 if the last backup failed as a disk is full."),
    "backy_job_distrusted_revisions": ("distrusted", "Revisions that are distrusted."),
    "backy_job_journal_findings": ("tampering", "What contradicts the journal."),
    "backy_job_wrong_revisions": ("wrong", "Revisions of which the source hid a change."),
}
"""The metrics of each job, with the label `job`: the member of the job's status, and what it means."""

HEADS = "backy_job_journal_lines"
"""The metric of each job that has the last line of its journal in labels, by which it is a witness."""


def render(status: Status) -> str:
    """Return the content of the metrics file."""
    return "".join(f"{line}\n" for line in _lines(status))


POOL_METRICS = {
    "backy_pool_running": "Jobs that run.",
    "backy_pool_queued": "Jobs that wait for a slot.",
    "backy_pool_limit": "Slots.",
}
"""The metrics of each pool, with the label `pool`."""


def _lines(status: Status) -> Iterator[str]:
    yield from _gauge("backy_scheduler_info", "1, with the version as a label.", [({"version": status.version}, 1)])
    valid = int(status.configuration_error is None)
    scheduler = {
        "backy_scheduler_start_timestamp_seconds": ("When the scheduler was started.", status.started.timestamp()),
        "backy_scheduler_written_timestamp_seconds": ("When this file was written.", status.written.timestamp()),
        "backy_scheduler_configuration_ok": ("0 while a newer configuration is wrong and so not in force.", valid),
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
        yield from _gauge(name, text, [({}, value)])
    for name, text in POOL_METRICS.items():
        # The last word of a name is the field of `PoolStatus`.
        field = name.rpartition("_")[2]
        yield from _gauge(name, text, [({"pool": pool}, getattr(one, field)) for pool, one in status.pools.items()])
    for name, (member, text) in JOB_METRICS.items():
        yield from _gauge(name, text, [({"job": job.job}, getattr(job, member)) for job in status.jobs])
    each = [(name, head) for job in status.jobs for name, head in job.heads.items()]
    heads = [({"job": name, "journal": head.job, "hash": head.hash}, head.number) for name, head in each]
    yield from _gauge(HEADS, "Lines of the journal, with its id and the hash of the last one.", heads)


def _gauge(name: str, text: str, samples: Iterable[tuple[Mapping[str, str], Any]]) -> Iterator[str]:
    """Yield a metric: its heading, and all samples that have a value, with their labels."""
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        if value is not None:
            about = ",".join(f'{label}="{_escaped(one)}"' for label, one in labels.items())
            yield f"{name}{{{about}}} {_figure(value)}"


def _figure(value: Any) -> float:  # noqa: ANN401  # the members of a status have many types
    if isinstance(value, datetime):
        return value.timestamp()
    return len(value) if isinstance(value, tuple) else value + 0  # 1 for True


def _escaped(label: str) -> str:
    # The order matters: the other two add backslashes.
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
