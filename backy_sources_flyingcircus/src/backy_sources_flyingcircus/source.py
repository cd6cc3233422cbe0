"""The source: an RBD image. The host of its virtual machine freezes the machine and makes the snapshot."""

import logging
import os
import time
from pathlib import Path

import msgspec

from backy.api import ConfigError, Consistency, SourceError
from backy.config import Duration
from backy_sources_ceph import CephConfig, CephSource, Image, parse_specification
from backy_sources_flyingcircus.snapshot_requests import SnapshotRequests

log = logging.getLogger(__name__)
TOKEN_VARIABLE = "CONSUL_HTTP_TOKEN"  # noqa: S105  # the name of a variable, not a token
_LONGEST_NAME = 255
# No host is faster, so looking earlier would only cost questions to the cluster.
FIRST_WAIT = 3
"""Seconds to wait before the first look for the snapshot."""
WAIT = 2
"""Seconds between two looks."""


class FlyingCircusConfig(CephConfig, frozen=True, kw_only=True):
    """An image as for `ceph-rbd`, its virtual machine, and the way to ask the machine's host for a snapshot."""

    vm: str
    """Name of the virtual machine."""
    consul: str | None = None
    """Address of the Consul agent, HOST:PORT or a URL; None for CONSUL_HTTP_ADDR or localhost:8500."""
    # Configurations of backy 2 write these two with underscores.
    consul_acl_token: str | None = msgspec.field(default=None, name="consul_acl_token")
    """Token for Consul."""
    consul_acl_token_file: Path | None = msgspec.field(default=None, name="consul_acl_token_file")
    """File with the token, in place of `consul_acl_token`."""
    snapshot_timeout: Duration = Duration(seconds=90)
    """Time to wait for the virtual machine's host."""

    def __post_init__(self) -> None:
        """Refuse a name that no virtual machine has, and two tokens."""
        super().__post_init__()
        if not self.vm.strip() or not self.vm.isprintable() or len(self.vm) > _LONGEST_NAME:
            raise ValueError(f"vm is a name of up to {_LONGEST_NAME} printable characters, not {self.vm!r}")
        if self.consul_acl_token is not None and self.consul_acl_token_file is not None:
            raise ValueError("there are consul_acl_token and consul_acl_token_file: leave one of them out")

    def token(self) -> str | None:
        """Return the token from the configuration, its file, or the environment; None if there is none.

        Raises:
            SourceError: the file can not be read.
        """
        # A file that can not be read is an error: without its token, Consul would refuse with a message that misleads.
        if self.consul_acl_token_file is None:
            return self.consul_acl_token or os.environ.get(TOKEN_VARIABLE)
        try:
            warn_if_open_to_all(self.consul_acl_token_file)
            return self.consul_acl_token_file.read_text().strip()
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SourceError(f"consul_acl_token_file {self.consul_acl_token_file}: {reason}") from None


def warn_if_open_to_all(path: Path) -> None:
    """Log a warning if everybody on this machine can read a file with a token."""
    if path.exists() and path.stat().st_mode & 0o004:
        log.warning("%s has a token of Consul and can be read by everybody: 'chmod o= %s'", path, path)


def parse_source(words: str) -> dict[str, str]:
    """Turn POOL/IMAGE,VM or POOL/IMAGE,VM,file:PATH into keys of `FlyingCircusConfig`.

    Raises:
        ConfigError: `words` has another form. The text does not repeat what may be a token.
    """
    image, *names = (word.strip() for word in words.split(","))
    path = [name.removeprefix("file:") for name in names[1:]]
    if len(names) not in {1, 2} or not all(names + path) or (path and path == names[1:]):
        text = f"a token, which everybody could see there, is in that file or in {TOKEN_VARIABLE}; got '{image},...'"
        raise ConfigError(f"SOURCE of the type 'flyingcircus' is POOL/IMAGE,VM or POOL/IMAGE,VM,file:PATH; {text}")
    keys = {**parse_specification(image), "vm": names[0]}
    return {**keys, "consul_acl_token_file": str(Path(path[0]).absolute())} if path else keys


class FlyingCircusSource(CephSource):
    """An image as that of `ceph-rbd`, with snapshots made by the virtual machine's host."""

    config: FlyingCircusConfig
    freezes = True

    def freeze(self, image: Image, name: str) -> Consistency:
        """Ask the host for the snapshot `name`. If it makes none, make it here while the machine runs.

        Returns `guest` if the host made the snapshot, which it does while the guest's file systems are frozen.

        Raises:
            SourceError: the snapshot can not be made here either.
        """
        config = self.config
        if config.consul_acl_token:
            warn_if_open_to_all(self.job.directory / "config")
        try:
            with SnapshotRequests(config.vm, config.consul, config.token(), time.time).asking(name):
                if self._appears(image, name):
                    return "guest"
            cause = f"its host made none within {config.snapshot_timeout.total_seconds():g} s"
        except SourceError as error:
            # A backup like one after a power loss is better than none.
            cause = str(error)
        # The host may have made it after the last look.
        if name in image.snapshots():
            return "guest"
        log.warning("%s: no consistent snapshot, so it is as after a power loss: %s", config.vm, cause)
        try:
            image.create_snapshot(name)
        except SourceError:
            if name in image.snapshots():  # the host made it in this instant
                return "guest"
            raise
        return "crash"

    def _appears(self, image: Image, name: str) -> bool:
        """Wait for a snapshot; return whether it appeared before the time was out."""
        deadline = time.monotonic() + self.config.snapshot_timeout.total_seconds()
        wait = FIRST_WAIT
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(wait, left))
            if name in image.snapshots():
                return True
            wait = WAIT
        return False
