"""The plugin `nbd`: exports of any NBD server. Configuration: `NbdConfig` of the module `config`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

from backy.api import Config, Consistency, Job, RestoreTarget, Snapshot, Source, TargetError
from backy.config import typed
from backy.errors import raising
from backy.hookspecs import hookimpl
from backy_sources_qemu import export
from backy_sources_qemu.config import NbdConfig, check_options

log = logging.getLogger(__name__)


class NbdSource:
    """An export, read as the server has it."""

    def __init__(self, config: NbdConfig) -> None:
        self._config = config
        # with a bitmap, all but the changes is compared by turns
        self.verifier = "changed" if config.bitmap else "sample"

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        """Connect to the export."""
        what = f"source {self._config.uri}"
        bitmap = (self._config.bitmap or "").replace("{parent}", parent) if parent else None
        # only the operator knows who else writes there
        consistency: Consistency = "crash" if self._config.frozen else "unknown"
        with export.opened(what, self._config.uri, bitmap or None) as opened:
            opened.judge = lambda: consistency
            if bitmap and not opened.knows(export.BITMAP + bitmap):
                log.warning("%s is read in full: its server has no bitmap '%s'", what, bitmap)
                opened.bitmap = None
            yield opened


@contextmanager
def opened_export(uri: str, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Open an export. Replace what is in it if `force` is set.

    Raises:
        TargetError: it can not be reached or written, is too small, or has data.
    """
    what = f"target {uri}"
    with ExitStack() as stack:
        with raising(TargetError, what):
            opened = stack.enter_context(export.opened(what, uri))
            if opened.handle.is_read_only():
                raise TargetError(f"{what} is read-only")
            if opened.size < size:
                raise TargetError(f"{what} has {opened.size} bytes, and the image has {size}")
            is_empty = not any(extent.data for extent in opened.extents())
        if not is_empty and not force:
            raise TargetError(f"{what} has data, or does not tell that it has none; --force replaces all of it")
        target = export.ExportTarget(opened, is_empty=is_empty)
        # what is behind the image may be another machine's
        target.zero(size, opened.size - size)
        yield target


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return NbdSource(typed(config, NbdConfig, "config.source"))


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for the URI of an export."""
    typed({"type": "nbd", "uri": argument}, NbdConfig, "export")
    return {"uri": argument}


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to an export of an NBD server."""
    check_options(options)
    backy_source_config(argument)
    return opened_export(argument, size, force=force)
