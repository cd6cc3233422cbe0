"""Restores a revision to where it can be used at once, before anything is copied.

What the target does not have yet, it reads from here. Until it has all, `in-use/<id>` keeps the revision, and what is
needed to go on after an interruption.
"""

import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from backy.api import LiveTarget
from backy.durable import read_file, sync_folder, write_file
from backy.errors import ConfigError, RepositoryError, TargetError
from backy.image.stored import StoredImage
from backy.repository.revision import Revision
from backy.repository.uses import require_unused, use_path, uses
from backy.restore.restore import Restore
from backy.restore.target import offered

log = logging.getLogger(__name__)
_ADDRESS = re.compile(r"([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")
_LAST_PORT = 65535
_MODE = 0o600
"""Of the files: who knows the token can read the image."""


class Use(msgspec.Struct, frozen=True):
    """A live restore that has begun and is not complete."""

    revision: str
    target: str
    """What is restored to, as TYPE:ARGUMENT."""
    host: str
    port: int
    """Where the target looks for the image, also after an interruption."""
    token: str
    copied: bool = False
    """Whether the target has everything, so that it may be complete already."""

    @classmethod
    def read(cls, directory: Path, revision_id: str) -> Self:
        """Read what uses a revision; raises RepositoryError if that is damaged."""
        path = use_path(directory, revision_id)
        try:
            return msgspec.json.decode(read_file(path), type=cls)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RepositoryError(f"{path} is damaged; nothing is in use for it once it is removed: {error}") from error

    def write(self, directory: Path) -> None:
        """Write it down, durably, in a repository."""
        path = use_path(directory, self.revision)
        path.parent.mkdir(mode=0o750, exist_ok=True)
        write_file(path, msgspec.json.encode(self) + b"\n", _MODE)
        sync_folder(directory)


@dataclass
class LiveRestore(Restore):
    """A restore to a target that can be used while it runs. `run` begins it, or goes on after an interruption."""

    listen: str | None = None
    """ADDRESS[:PORT] by which all who use the target get here; None for that of the interrupted restore."""
    ready: Callable[[str], None] = log.info
    """Called with a text when the target can be used."""
    prepare_only: bool = False
    """Whether to copy nothing, but to serve what the target lacks until SIGTERM or Ctrl-C."""

    def run(self) -> Revision:
        """Restore the revision to the target and return its record; with `prepare_only`, make the target usable.

        After an interruption, it goes on with the same revision at the same address.

        Raises:
            TargetError: the target exists, or nobody can listen at the address.
            RepositoryBusyError: another live restore uses the revision.
            ConfigError: no address is known, or it has a wrong form.
            Others as `Restore.run` does.
        """
        if found := self._interrupted():
            # 'latest' may be another one by now
            self.specification = found.revision
        return super().run()

    def abort(self) -> None:
        """Remove what an interrupted live restore to the target has left, and give the revision free.

        Raises TargetError if there was none, or if the target is in use.
        """
        if not (found := self._interrupted()):
            raise TargetError(f"no live restore to {self.target} was interrupted")
        self._live().abort()
        use_path(self.repository.directory, found.revision).unlink()

    def _interrupted(self) -> Use | None:
        """Return what is known of a live restore to the target that has begun."""
        each = [Use.read(self.repository.directory, one) for one in uses(self.repository.directory)]
        return next((found for found in each if found.target == self.target), None)

    def _live(self) -> LiveTarget:
        kind, colon, argument = self.target.partition(":")
        if not colon:
            raise ConfigError(f"'{self.target}' is not of the form TYPE:ARGUMENT, as in ceph-rbd:POOL/IMAGE")
        words = {"argument": argument, "options": self.options}
        return offered(kind, self.repository, "backy_live_restore", **words)  # type: ignore[no-any-return]  # by the hook

    def _write(self, revision: Revision, image: StoredImage) -> None:
        live, before = self._live(), self._interrupted()
        if not before:
            live.require_new()
        found = before or self._new(revision)
        with live.serve(image, found.host, found.port, found.token) as port:
            if not before:
                found = replace(found, port=port)
                self._begin(revision, found)
            try:
                self._serve(live, found, image.size)
            finally:
                # however it ends
                if use_path(self.repository.directory, revision.id).exists():
                    way = "the same command goes on, without --prepare-only to the end, and --abort removes it"
                    log.warning("%s can not be used while nobody serves what it lacks: %s", self.target, way)

    def _serve(self, live: LiveTarget, found: Use, size: int) -> None:
        directory = self.repository.directory
        if not found.copied:
            live.prepare()
            text = f"{self.target} can be used now; {found.revision} is served at {found.host}:{found.port}"
            if self.prepare_only:
                with suppress(KeyboardInterrupt):
                    self.ready(text)
                    # a signal right before a longer sleep might never be noticed
                    while True:
                        time.sleep(1)
                return
            self.ready(text)
            live.copy(self.steps("restore", size))
            # only now an image that reads from nowhere may be the one that was made here
            replace(found, copied=True).write(directory)
        live.commit()
        use_path(directory, found.revision).unlink()

    def _new(self, revision: Revision) -> Use:
        if self.listen is None:
            why = "all programs that use the image fetch from here by themselves"
            raise ConfigError(f"{why}: say by --listen ADDRESS how they get here, or by --local that they run here")
        found = _ADDRESS.fullmatch(self.listen)
        if not found or not found[1].strip("0.") or int(found[2] or 0) > _LAST_PORT:
            form = "ADDRESS or ADDRESS:PORT with a name or an IPv4 address of this machine"
            raise ConfigError(f"--listen: '{self.listen}' is not {form}")
        return Use(revision.id, self.target, found[1], int(found[2] or 0), secrets.token_urlsafe())

    def _begin(self, revision: Revision, found: Use) -> None:
        with self.repository.records.recording():
            # nobody has forgotten it meanwhile
            self.repository.records.current(revision)
            require_unused(self.repository.directory, revision.id)
            found.write(self.repository.directory)

    def _tell(self, event: str, **arguments: object) -> None:
        # what was only prepared is not finished
        if not self.prepare_only or event != "backy_restore_finished":
            super()._tell(event, **arguments)
