"""Backs up a disk of a running machine."""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial

from backy.api import SourceError
from backy.errors import warned
from backy_sources_qemu import export
from backy_sources_qemu.bitmaps import MARK, base_of, bitmap_name, other_than
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.machine import Disk, Machine, Names
from backy_sources_qemu.monitor import locked, place
from backy_sources_qemu.scratch import Scratch, scratch

log = logging.getLogger(__name__)
Reach = Callable[[], AbstractContextManager[tuple[Machine, Disk]]]
"""Connects to the machine, cleans up what an earlier backup has left, and finds the disk."""


@contextmanager
def frozen(
    reach: Reach, config: QemuConfig, job_id: str, revision_id: str, parent: str | None
) -> Iterator[export.Export]:
    """Freeze a disk. Its bitmap replaces that of `parent` after a complete backup, and goes if it failed.

    The monitor is used at the begin and at the end, and free for others meanwhile.
    """
    what, bitmap = f"source {config.title}", ""
    try:
        with ExitStack() as stack:
            # as long as it is held, nobody takes the filter out
            stack.enter_context(locked(what, place(what, Names.of(job_id).filter), wait=False))
            with reach() as (machine, disk):
                base = base_of(what, disk.bitmaps(), job_id, parent)
                size = disk.size
                if base and base.size != size:
                    log.info("%s had %d bytes and has %d: what it has grown by is read, too", what, base.size, size)
                bitmap = bitmap_name(job_id, revision_id, size)
                made = stack.enter_context(scratch(what, config, size))
                disk.freeze(made, bitmap, base.name if base else None)
                disk.export(changes=base is not None)
                connect = export.unix(machine.path, machine.names.export)
                copy = machine.names.copy if base else None
                connection = stack.enter_context(export.opened(what, connect, copy))
                connection.explain = partial(_explained, made)
            yield export.Export(connection, lambda: "crash", copy, base and base.known)
    except BaseException:
        # what can not be removed now is removed by the next backup
        with suppress(SourceError), reach() as (_, disk):
            disk.remove_bitmaps({one.name for one in disk.bitmaps()} & {bitmap, bitmap + MARK})
        raise
    with warned(log, "what the backup has made in QEMU stays until the next one"), reach() as (_, disk):
        remove_others(disk, job_id, [revision_id])


def remove_others(disk: Disk, job_id: str, revision_ids: Collection[str]) -> None:
    """Remove the job's bitmaps that are not of these revisions. Log those that stay."""
    for name in other_than((one.name for one in disk.bitmaps()), job_id, revision_ids):
        with warned(log, f"the bitmap {name} stays until the next backup"):
            disk.remove_bitmaps([name])


def _explained(made: Scratch, text: str) -> str:
    """Tell why QEMU has given up the frozen disk, which it tells as an invalid argument."""
    if made.is_full():
        return (
            f"{text}; what the machine overwrites during a backup has filled {made.limit} bytes: "
            "set a larger 'scratch-limit', or another 'scratch', in the section 'source'"
        )
    if "Invalid argument" in text:
        return f"{text}; QEMU could not copy what the machine overwrites, or not in time"
    return text
