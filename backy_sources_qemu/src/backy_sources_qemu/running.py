"""Backs up a disk of a running machine."""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from backy.api import Extent, SourceError
from backy_sources_qemu import export
from backy_sources_qemu.bitmaps import MARK, Base, base_of, bitmap_name, other_than
from backy_sources_qemu.config import QemuConfig
from backy_sources_qemu.machine import Disk, Machine, Names
from backy_sources_qemu.places import locked, place
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
            yield FrozenDisk(connection, copy, base, made)
    except BaseException:
        # what can not be removed now is removed by the next backup
        with suppress(SourceError), reach() as (_, disk):
            disk.remove_bitmaps({one.name for one in disk.bitmaps()} & {bitmap, bitmap + MARK})
        raise
    try:
        with reach() as (_, disk):
            remove_others(disk, job_id, [revision_id])
    except SourceError as error:
        log.warning("what the backup has made in QEMU stays until the next one: %s", error)


def remove_others(disk: Disk, job_id: str, revision_ids: Collection[str]) -> None:
    """Remove the job's bitmaps that are not of these revisions. Log those that stay."""
    for name in other_than((one.name for one in disk.bitmaps()), job_id, revision_ids):
        try:
            disk.remove_bitmaps([name])
        except SourceError as error:
            log.warning("the bitmap %s stays until the next backup: %s", name, error)


class FrozenDisk(export.Export):
    """The export of a frozen disk, with the bitmap of what has changed since `base`."""

    def __init__(self, connection: export.Connection, bitmap: str | None, base: Base | None, scratch: Scratch) -> None:
        super().__init__(connection, lambda: "crash", bitmap, base.known if base else None)
        self._scratch = scratch

    def pread(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`; raise SourceError if they can not be read."""
        with self._explained():
            return super().pread(offset, length)

    def extents(self) -> Iterator[Extent]:
        """Yield data and holes; raise SourceError if QEMU does not tell them."""
        with self._explained():
            yield from super().extents()

    def changes(self) -> Iterator[Extent] | None:
        """Return the ranges that have changed; None if they are not known. Reading them may raise SourceError."""
        found = super().changes()
        return None if found is None else self._all_of(found)

    def _all_of(self, found: Iterable[Extent]) -> Iterator[Extent]:
        with self._explained():
            yield from found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell why QEMU has given up the frozen disk, which it tells as an invalid argument."""
        try:
            yield
        except SourceError as error:
            if self._scratch.is_full():
                raise SourceError(
                    f"{error}; what the machine overwrites during a backup has filled {self._scratch.limit} bytes: "
                    "set a larger 'scratch-limit', or another 'scratch', in the section 'source'"
                ) from error
            if "Invalid argument" in str(error):
                raise SourceError(
                    f"{error}; QEMU could not copy what the machine overwrites, or not in time"
                ) from error
            raise
