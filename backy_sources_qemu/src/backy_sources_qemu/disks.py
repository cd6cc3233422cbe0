"""The plugin `qemu`: disks of QEMU's machines, running or shut down. Configuration: `QemuConfig` of `config`."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from backy.api import Config, ConfigError, Job, RestoreTarget, Snapshot, Source, SourceError
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_qemu import domains, image, machine
from backy_sources_qemu.config import QemuConfig, check_options, parse_disk
from backy_sources_qemu.monitor import Command, connected, locked, place, short


class QemuSource:
    """A disk. The bitmap of the newest complete revision is kept for the next backup."""

    # what has changed is known, and the machine works on what is read
    verifier = "changed"

    def __init__(self, config: QemuConfig, job: Job) -> None:
        self._config = config
        self._job = job
        self._what = f"source {config.title}"
        self._files: dict[str, bytes] = {}

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Freeze the disk of a running machine, or open the image of one that is shut down."""
        with self._found() as found:
            if isinstance(found, image.Image):
                snapshot = image.opened(found, self._job.id, revision_id, parent)
            else:
                snapshot = machine.frozen(found, self._config, self._job.id, revision_id, parent)
            with snapshot as opened:
                opened.files = self._files
                yield opened

    def retain(self, revision_ids: Collection[str]) -> None:
        """Remove this job's bitmaps whose revisions are not in `revision_ids`."""
        with self._found() as found:
            if isinstance(found, image.Image):
                image.retain(found, self._job.id, revision_ids)
            else:
                machine.retain(found, self._job.id, revision_ids)

    @contextmanager
    def _found(self) -> Iterator[machine.Reach | image.Image]:
        """Find the machine or, if it is shut down, its image, and keep other backups of an image away."""
        with ExitStack() as stack:
            found = self._look()
            if isinstance(found, image.Image):
                stack.enter_context(locked(self._what, place(self._what, str(found.path.resolve())), wait=False))
            yield found

    def _look(self) -> machine.Reach | image.Image:
        config = self._config
        if config.domain is not None:
            with domains.connected(self._what, config) as (domain, _):
                self._files = {"libvirt.xml": domain.description}
                if domain.is_active:
                    return self._by_libvirt
                if domain.image is None or domain.format is None:
                    raise SourceError(f"{self._what}: the machine does not run, and its image is neither qcow2 nor raw")
                return image.Image(self._what, domain.image, domain.format)
        if config.qmp is not None:
            # as long as another backup of the machine has it, the monitor does not answer
            with self._alone(str(config.qmp.resolve())), connected(self._what, config.qmp) as command:
                if command is not None:
                    return self._by_socket
        if config.image is None:
            raise SourceError(
                f"{self._what}: no QEMU listens there; if the machine is shut down, 'image' in the section 'source' "
                "names what to read"
            )
        return image.image(self._what, config.image, config.format)

    @contextmanager
    def _by_socket(self) -> Iterator[machine.Disk]:
        path = (self._config.qmp or Path()).resolve()
        with self._alone(str(path)) as begin, connected(self._what, path) as command:
            if command is None:
                raise SourceError(f"{self._what}: the machine was shut down")
            yield self._reached(command, begin, None)

    @contextmanager
    def _by_libvirt(self) -> Iterator[machine.Disk]:
        with domains.connected(self._what, self._config) as (domain, command), self._alone(domain.uuid) as begin:
            yield self._reached(command, begin, domain.alias)

    def _reached(self, command: Command, begin: Path, alias: str | None) -> machine.Disk:
        reached = machine.Machine(
            self._what, command, machine.Names.of(short(self._job.id)), begin.with_suffix(".socket")
        )
        reached.clean_up()
        return reached.disk(self._config.node, alias)

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """Keep other backups of the machine from its monitor, for the moment that it takes."""
        begin = place(self._what, name)
        with locked(self._what, begin, wait=True):
            yield begin


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
        raise ConfigError(
            f"'{argument}' is no name of a qcow2 file, as in disk.qcow2; for a raw image name its path alone"
        )
    return image.restored(Path(argument), size, force=force)
