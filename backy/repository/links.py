"""The links `last.rev` and `last`, which lead to the newest revision."""

import logging
import shlex
from collections.abc import Callable
from contextlib import suppress

from backy.api import Storage
from backy.durable import replace_link
from backy.errors import StorageError
from backy.repository.records import LAST, LAST_RECORD, Records
from backy.repository.revision import Revision

log = logging.getLogger(__name__)


def lead(records: Records, storage: Callable[[str | None], Storage], newest: Revision | None) -> None:
    """Point `last.rev`, and `last` if its image is raw, at `newest`; None stands for the newest of the records."""
    if newest is None:
        sound, damaged = records.survey()
        # a link to a damaged record is all that tells that it is the newest one
        if records.linked() in {error.revision_id for error in damaged}:
            return
        if records.doubt(sound, damaged) is None:
            newest = sound[-1] if sound else None
    targets: dict[str, str | None] = {LAST_RECORD: None, LAST: None}
    if newest is not None:
        targets[LAST_RECORD] = records.record_path(newest.id).name
        # if nobody knows where it is, the other link and other revisions are as useful as before
        with suppress(StorageError):
            # a wrong one goes by its id
            targets[LAST] = newest.id if storage(newest.storage).raw and not newest.state.wrong else None
    for name, target in targets.items():
        link = records.directory / name
        if target is None:
            if link.is_symlink():
                link.unlink()
        elif link.is_dir() and not link.is_symlink():
            aside = f"mv {shlex.quote(str(link))} {shlex.quote(f'{link}.old')}"
            log.warning("%s is a folder, and should lead to the newest revision; '%s' makes way", link, aside)
        elif not link.is_symlink() or str(link.readlink()) != target:
            replace_link(link, target)
