"""The plugin `nbd`: exports of any NBD server. Configuration: `NbdConfig` of the module `config`."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from backy.api import Config, ConfigError, Consistency, Job, RestoreTarget, Snapshot, Source
from backy.config import typed
from backy.hookspecs import hookimpl
from backy_sources_qemu import export
from backy_sources_qemu.config import NbdConfig, check_uri
from backy_sources_qemu.target import check_options, opened_export

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
        with export.opened(what, self._config.uri, bitmap or None, lambda: consistency) as opened:
            if bitmap and not opened.knows(export.BITMAP + bitmap):
                log.warning("%s is read in full: its server has no bitmap '%s'", what, bitmap)
                opened.bitmap = None
            yield opened


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    """Make the source from its section."""
    return NbdSource(typed(config, NbdConfig, "config.source"))


@hookimpl
def backy_source_config(argument: str) -> Config:
    """Return the section for the URI of an export."""
    try:
        check_uri(argument)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return {"uri": argument}


@hookimpl
def backy_restore_target(
    argument: str, options: Mapping[str, str], size: int, force: bool
) -> AbstractContextManager[RestoreTarget]:
    """Restore to an export of an NBD server."""
    check_options(options)
    backy_source_config(argument)
    return opened_export(argument, size, force=force)
