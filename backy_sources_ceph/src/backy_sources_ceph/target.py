"""Restoring into an image of a Ceph cluster: sparse, and with many writes under way at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import msgspec

from backy.api import Config, ConfigError, RestoreTarget, SourceError, TargetError
from backy.config import typed
from backy_sources_ceph.config import CephConfig, parse_specification
from backy_sources_ceph.connection import bindings, opened_pool, reason, reported

log = logging.getLogger(__name__)
FEATURES: Final = {
    "layering": 1,
    "exclusive-lock": 4,
    "object-map": 8,
    "fast-diff": 16,
    "deep-flatten": 32,
    "journaling": 64,
}
"""What may be asked for, by the bits of librbd's features.h."""

_UNDER_WAY = 16
"""Writes that are waited for at most, of up to 4 MiB each."""


class TargetOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What `-o` says: how to get at the cluster, as in `CephConfig`, and how to make the image."""

    conf: str | None = None
    cluster: str | None = None
    user: str | None = None
    features: str | None = None
    """Names with commas between them; None leaves it to the cluster's configuration."""


class TargetPlan(msgspec.Struct, frozen=True):
    """Which image to restore to."""

    config: CephConfig
    features: int | None

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"target {self.config.specification}"


def plan_target(argument: str, options: Mapping[str, str], source: Config) -> TargetPlan:
    """Make a plan of what the user said; what he did not say is as in the job's own `source`, if that is of this type.

    Raises:
        ConfigError: the image is not named in the right way, or an option is unknown or wrong.
    """
    chosen = typed(dict(options), TargetOptions, "option")
    own = {key: source[key] for key in ("pool", "namespace", "conf", "cluster", "user") if key in source}
    if "/" in argument:
        own = {**own, "namespace": "", **parse_specification(argument)}
    elif "pool" not in own:
        raise ConfigError(f"'{argument}' names no RBD image: write POOL/IMAGE or POOL/NAMESPACE/IMAGE")
    else:
        own["image"] = argument
    given = {key: value for key in ("conf", "cluster", "user") if (value := getattr(chosen, key)) is not None}
    config = typed({"type": "ceph-rbd", **own, **given}, CephConfig, "target")
    return TargetPlan(config, None if chosen.features is None else _bits(chosen.features))


def _bits(features: str) -> int:
    names = [name.strip() for name in features.split(",") if name.strip()]
    for name in names:
        if name not in FEATURES:
            raise ConfigError(f"option.features: there is no feature '{name}'; there are {', '.join(FEATURES)}")
    return sum(FEATURES[name] for name in set(names))


@contextmanager
def opened_target(target: TargetPlan, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Make the image, or empty it if it is there and `force` is set, and open it.

    Raises:
        TargetError: the image is there, or in use, or can not be made, and nothing in it was changed; or it can not be
            emptied, and the text says that it is incomplete.
    """
    with ExitStack() as stack:
        with _told(target.title):
            pool = stack.enter_context(opened_pool(target.config, target.title))
            made = _make(pool, target, size, force=force)
            handle = stack.enter_context(bindings()[1].Image(pool, target.config.image))
            if not made:
                _empty(handle, target.title, size)
            if missing := (target.features or 0) & ~handle.features():
                names = ", ".join(name for name, bit in FEATURES.items() if bit & missing)
                log.warning("%s is without features that were asked for: %s", target.title, names)
        opened = RbdTarget(handle, target.title)
        stack.callback(opened.wait)
        yield opened


def _make(pool: Any, target: TargetPlan, size: int, *, force: bool) -> bool:
    """Make the image; false if it is there and may be replaced."""
    _, rbd = bindings()
    try:
        rbd.RBD().create(pool, target.config.image, size, old_format=False, features=target.features)
    except rbd.ImageExists:
        if not force:
            raise TargetError(f"{target.title} exists already; --force replaces what is in it") from None
        return False
    except rbd.InvalidArgument as error:
        raise TargetError(f"{target.title}: {error}; does a feature need another one?") from error
    return True


def _empty(handle: Any, title: str, size: int) -> None:
    """Let an image have `size` bytes, all zeroes, unless somebody uses it."""
    if len(list(handle.watchers_list())) > 1:
        raise TargetError(f"{title} is in use; is a virtual machine running on it, or a backup under way?")
    with _told(f"{title} is incomplete, for it could not be emptied"):
        # to discard and to write zeroes would take a request for every object, and would leave a parent in place
        handle.resize(0)
        handle.resize(size)


class RbdTarget:
    """An image that reads as zeroes where nothing has been written yet."""

    def __init__(self, handle: Any, title: str) -> None:
        self._handle = handle
        self._title = title
        self._slots = threading.Semaphore(_UNDER_WAY)
        self._code = 0

    def pwrite(self, data: bytes, offset: int) -> None:
        """Begin to write; that an earlier write failed is told here, too."""
        self._check()
        self._slots.acquire()

        def done(completion: Any, _data: bytes = data) -> None:  # librbd may read from the data until then
            self._code = min(self._code, completion.get_return_value())
            self._slots.release()

        try:
            with _told(self._title):
                self._handle.aio_write(data, offset, done)
        except TargetError:
            self._slots.release()
            raise

    def zero(self, offset: int, length: int) -> None:
        """Do nothing: the image was made or emptied."""

    def finish(self) -> None:
        """Wait for all that was begun."""
        self.wait()
        self._check()
        with _told(self._title):
            self._handle.flush()

    def wait(self) -> None:
        """Wait until nothing is under way any more."""
        for _ in range(_UNDER_WAY):
            self._slots.acquire()
        self._slots.release(_UNDER_WAY)

    def _check(self) -> None:
        if self._code < 0:
            raise TargetError(f"{self._title}: {reason(-self._code)}")


@contextmanager
def _told(title: str) -> Iterator[None]:
    """Turn errors of Ceph, and those of its source, into a TargetError."""
    try:
        with reported(title):
            yield
    except SourceError as error:
        raise TargetError(str(error)) from error
