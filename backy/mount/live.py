"""Restores a revision to where it can be used at once, before anything is copied.

What the target does not have yet, it reads from here. Until it has all, `in-use/<id>` keeps the revision, and what is
needed to go on after an interruption.
"""

import logging
import re
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backy.api import LiveTarget
from backy.durable import read_file, sync_folder, write_file
from backy.errors import ConfigError, RepositoryError, TargetError
from backy.image.stored import StoredImage
from backy.repository.revision import Revision
from backy.repository.uses import require_unused, use_path, uses
from backy.restore.restore import Restore
from backy.restore.target import offered

log = logging.getLogger(__name__)
# a name or an IPv4 address that is not 0.0.0.0, which nobody gets to
_ADDRESS = re.compile(r"(?![0.]+(?::|$))([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?")
_LAST_PORT = 65535
_MODE = 0o600
"""Of the files: who knows the token can read the image."""


class Use(msgspec.Struct):
    """A live restore that has begun and is not complete: the content of `in-use/<id>`."""

    target: str
    """What is restored to, as TYPE:ARGUMENT."""
    options: Mapping[str, str]
    """Options of TYPE, by name."""
    host: str
    port: int
    """Where the target looks for the image, also after an interruption."""
    token: str
    copied: bool = False
    """Whether the target has everything, so that it may be complete already."""


@dataclass
class LiveRestore(Restore):
    """A restore to a target that can be used while it runs. `run` begins it, or goes on after an interruption."""

    listen: str | None = None
    """ADDRESS[:PORT] by which all who use the target get here; None for that of the interrupted restore."""
    ready: Callable[[str], None] = log.info
    """Called with a text when the target can be used."""
    prepare_only: bool = False
    """Whether to copy nothing, but to serve what the target lacks until SIGTERM or Ctrl-C."""
    _before: Use | None = field(default=None, init=False)
    """What is known of it if it goes on."""

    def run(self) -> Revision:
        """Restore the revision to the target and return its record; with `prepare_only`, make the target usable.

        After an interruption, it goes on with the same revision at the same address. While the target copies, SIGINT
        and SIGTERM end the program at once.

        Raises:
            TargetError: the target exists, is that of another live restore, or nobody can listen at the address.
            RepositoryBusyError: another live restore uses the revision.
            ConfigError: no address is known, it has a wrong form, or the interrupted restore had other options.
            Others as `Restore.run` does.
        """
        if found := self._interrupted():
            # 'latest' may be another one by now
            self.specification, self._before = found
        return super().run()

    def abort(self) -> None:
        """Remove what an interrupted live restore to the target has left, and give the revision free.

        Raises TargetError if there was none, or if the target is in use or that of another live restore.
        """
        if not (found := self._interrupted()):
            raise TargetError(f"no live restore to {self.target} was interrupted")
        self._live().abort(found[1].token)
        use_path(self.repository.directory, found[0]).unlink()

    def _interrupted(self) -> tuple[str, Use] | None:
        """Return the revision of which a live restore to the target has begun, and what is known; take its options."""
        each = ((one, _read(use_path(self.repository.directory, one))) for one in uses(self.repository.directory))
        if found := next((found for found in each if found[1].target == self.target), None):
            if self.options and self.options != found[1].options:
                raise ConfigError(f"the live restore to {self.target} goes on without -o: it began with other options")
            self.options = found[1].options
        return found

    def _live(self) -> LiveTarget:
        kind, colon, argument = self.target.partition(":")
        if not colon:
            raise ConfigError(f"'{self.target}' is not of the form TYPE:ARGUMENT, as in ceph-rbd:POOL/IMAGE")
        words = {"argument": argument, "options": self.options}
        return offered(kind, self.repository, "backy_live_restore", **words)  # type: ignore[no-any-return]  # by the hook

    def _write(self, revision: Revision, image: StoredImage) -> None:
        live, path = self._live(), use_path(self.repository.directory, revision.id)
        if not self._before:
            live.require_new()
        use = self._before or self._new()
        with live.serve(image, use.host, use.port, use.token) as use.port:
            if not self._before:
                with self.repository.records.recording():
                    # nobody has forgotten it meanwhile
                    self.repository.records.current(revision)
                    require_unused(self.repository.directory, revision.id)
                    _mark(path, use)
            try:
                self._serve(live, use, path, image.size)
            finally:
                # however it ends
                if path.exists():
                    lacking = "can not be used while nobody serves what it lacks"
                    way = "the same command goes on, without --prepare-only to the end, and --abort removes it"
                    complete = "has everything that it lacked: the same command completes it"
                    log.warning("%s %s", self.target, complete if use.copied else f"{lacking}: {way}")

    def _serve(self, live: LiveTarget, use: Use, path: Path, size: int) -> None:
        if not use.copied:
            live.prepare()
            with suppress(KeyboardInterrupt) if self.prepare_only else nullcontext():
                self.ready(f"{self.target} can be used now; {path.name} is served at {use.host}:{use.port}")
                # a signal right before a longer sleep might never be noticed
                while self.prepare_only:
                    time.sleep(1)
            if self.prepare_only:
                return
            with ExitStack() as stack:
                # handlers of Python would wait for the end of a call of a library, which takes hours
                for one in (signal.SIGINT, signal.SIGTERM):
                    stack.callback(signal.signal, one, signal.signal(one, signal.SIG_DFL))
                live.copy(self.steps("restore", size))
            # only now an image that reads from nowhere may be the one that was made here
            use.copied = True
            _mark(path, use)
        live.commit()
        path.unlink()

    def _new(self) -> Use:
        if self.listen is None:
            why = "all programs that use the image fetch from here by themselves"
            raise ConfigError(f"{why}: say by --listen ADDRESS how they get here, or by --local that they run here")
        if not (found := _ADDRESS.fullmatch(self.listen)) or int(found[2] or 0) > _LAST_PORT:
            form = "ADDRESS or ADDRESS:PORT with a name or an IPv4 address of this machine"
            raise ConfigError(f"--listen: '{self.listen}' is not {form}")
        return Use(self.target, self.options, found[1], int(found[2] or 0), secrets.token_urlsafe())

    def _tell(self, event: str, **arguments: object) -> None:
        # what was only prepared is not finished
        if not self.prepare_only or event != "backy_restore_finished":
            super()._tell(event, **arguments)


def _read(path: Path) -> Use:
    try:
        return msgspec.json.decode(read_file(path), type=Use)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        lost = "once it is removed, the image that it is for can not be served any more"
        raise RepositoryError(f"{path} is damaged; {lost}: {error}") from error


def _mark(path: Path, use: Use) -> None:
    path.parent.mkdir(mode=0o750, exist_ok=True)
    write_file(path, msgspec.json.encode(use) + b"\n", _MODE)
    sync_folder(path.parent.parent)
