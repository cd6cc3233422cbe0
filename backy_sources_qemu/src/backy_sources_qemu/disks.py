"""The plugin `qemu`: disks of QEMU's machines, running or shut down. Configuration: `QemuConfig` of `config`."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from backy.api import Config, ConfigError, Job, RestoreTarget, Snapshot, Source, SourceError
from backy.config import typed
from backy.errors import warned
from backy.hookspecs import hookimpl
from backy_sources_qemu import export, image
from backy_sources_qemu.bitmaps import MARK, base_of, bitmap_name, remove_others
from backy_sources_qemu.config import QemuConfig, check_options, parse_disk
from backy_sources_qemu.machine import Disk, Names
from backy_sources_qemu.monitor import by_libvirt, by_socket, locked, place, short
from backy_sources_qemu.scratch import Scratch, scratch

log = logging.getLogger(__name__)
Reach = Callable[[], AbstractContextManager[Disk]]
"""Connects to the machine, cleans up what an earlier backup has left, and finds the disk."""


class QemuSource:
    """A disk. The bitmap of the newest complete revision is kept for the next backup."""

    # what has changed is known, and the machine works on what is read
    verifier = "changed"

    def __init__(self, config: QemuConfig, job: Job) -> None:
        self._config = config
        self._job = job
        self._what = f"source {config.title}"
        self._names = Names(short(job.id))
        self._files: dict[str, bytes] = {}

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the disk of a running machine, or open the image of one that is shut down."""
        found = self._found()
        if isinstance(found, image.Image):
            snapshot = image.opened(found, self._job.id, revision_id, parent)
        else:
            snapshot = self._frozen(found, revision_id, parent)
        with snapshot as opened:
            opened.files = self._files
            yield opened

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove this job's bitmaps whose revisions are not in `revision_ids`."""
        found = self._found()
        if isinstance(found, image.Image):
            image.retain(found, self._job.id, revision_ids)
        else:
            with found() as disk:
                self._remove_others(disk, revision_ids)

    @contextmanager
    def _frozen(self, reach: Reach, revision_id: str, parent: str | None) -> Iterator[export.Export]:
        """Freeze a disk. Its bitmap replaces that of `parent` after a complete backup, and goes if it failed.

        The monitor is used at the begin and at the end, and free for others meanwhile.
        """
        what, bitmap = self._what, ""
        try:
            with ExitStack() as stack:
                # as long as it is held, nobody takes the filter out
                stack.enter_context(locked(what, place(what, self._names.filter), wait=False))
                with reach() as disk:
                    base, size = base_of(what, disk.bitmaps(), self._job.id, parent), disk.size
                    if base and base.size != size:
                        log.info("%s had %d bytes and has %d: what it has grown by is read, too", what, base.size, size)
                    bitmap = bitmap_name(self._job.id, revision_id, size)
                    made = stack.enter_context(scratch(what, self._config, size))
                    disk.freeze(made, bitmap, base.name if base else None)
                    uri, copy = disk.export(changes=base is not None), self._names.copy if base else None
                    opened = stack.enter_context(export.opened(what, uri, copy))
                    opened.judge = lambda: "crash"
                    opened.earlier = base and base.known
                    opened.explain = partial(_explained, made)
                yield opened
        except BaseException:
            # what can not be removed now is removed by the next backup
            with suppress(SourceError), reach() as disk:
                for name in {one.name for one in disk.bitmaps()} & {bitmap, bitmap + MARK}:
                    disk.remove_bitmap(name)
            raise
        with warned(log, "what the backup has made in QEMU stays until the next one"), reach() as disk:
            self._remove_others(disk, [revision_id])

    def _remove_others(self, disk: Disk, revision_ids: Collection[str]) -> None:
        remove_others(disk.remove_bitmap, (one.name for one in disk.bitmaps()), self._job.id, revision_ids)

    def _found(self) -> Reach | image.Image:
        """Find the machine or, if it is shut down, its image."""
        config = self._config
        if config.domain is not None:
            with by_libvirt(self._what, config) as (domain, _):
                self._files = {"libvirt.xml": domain.description}
                if domain.is_active:
                    return self._by_libvirt
                if domain.image is None or domain.format is None:
                    raise SourceError(f"{self._what}: the machine does not run, and its image is neither qcow2 nor raw")
                return image.Image(self._what, domain.image, domain.format)
        if config.qmp is not None:
            # as long as another backup of the machine has it, the monitor does not answer
            with self._alone(str(config.qmp.resolve())), by_socket(self._what, config.qmp) as command:
                if command is not None:
                    return self._by_socket
        if config.image is None:
            text = "no QEMU listens there; if the machine is shut down, 'image' beside 'qmp' names what to read"
            raise SourceError(f"{self._what}: {text}")
        return image.image(self._what, config.image, config.format)

    @contextmanager
    def _by_socket(self) -> Iterator[Disk]:
        path = (self._config.qmp or Path()).resolve()
        with self._alone(str(path)) as begin, by_socket(self._what, path) as command:
            if command is None:
                raise SourceError(f"{self._what}: the machine was shut down")
            yield Disk(self._what, command, self._names, begin.with_suffix(".socket"), self._config.node, None)

    @contextmanager
    def _by_libvirt(self) -> Iterator[Disk]:
        with by_libvirt(self._what, self._config) as (domain, command), self._alone(domain.uuid) as begin:
            yield Disk(self._what, command, self._names, begin.with_suffix(".socket"), None, domain.alias)

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Keep other backups of the machine from its monitor, for the moment that it takes."""
        begin = place(self._what, name)
        with locked(self._what, begin, wait=True):
            yield begin


def _explained(made: Scratch, text: str) -> str:
    """Tell why QEMU has given up the frozen disk, which it tells as an invalid argument."""
    if made.is_full():
        filled = f"what the machine overwrites during a backup has filled {made.limit} bytes"
        return f"{text}; {filled}: set a larger 'scratch-limit', or another 'scratch', in the section 'source'"
    if "Invalid argument" in text:
        return f"{text}; QEMU could not copy what the machine overwrites, or not in time"
    return text


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return QemuSource(typed(config, QemuConfig, "config.source"), job)


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for a disk."""
    return parse_disk(argument)


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to a qcow2 file, which is made."""
    check_options(options)
    if not argument.endswith(".qcow2"):
        raise ConfigError(f"'{argument}' is no name like disk.qcow2; for a raw image name its path alone")
    return image.restored(Path(argument), size, force=force)
