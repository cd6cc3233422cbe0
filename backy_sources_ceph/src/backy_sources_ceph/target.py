"""Restores into an image of a Ceph cluster: sparse, with many writes at once."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from backy.api import Config, ConfigError, RestoreTarget, TargetError
from backy.config import typed
from backy.errors import raising
from backy_sources_ceph.connection import CephConfig, bindings, opened_pool, parse_specification, reported

log = logging.getLogger(__name__)


class TargetOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Options given with `-o`: the way to the cluster as in `CephConfig`, and features of a new image."""

    conf: str | None = None
    cluster: str | None = None
    user: str | None = None
    features: str | None = None
    """Names with commas between them; None for those in the cluster's configuration."""


class TargetPlan(msgspec.Struct, frozen=True):
    """The image to restore to."""

    config: CephConfig
    features: int | None
    """Bits of the features of a new image; None for those in the cluster's configuration."""

    @property
    def title(self) -> str:
        """The name of the target in messages."""
        return f"target {self.config.specification}"


def plan_target(argument: str, options: Mapping[str, str], source: Config) -> TargetPlan:
    """Return the plan for a user's words. The job's own section `source` has the defaults if it is of this type.

    Raises:
        ConfigError: the name of the image has the wrong form, or an option is unknown or wrong.
    """
    chosen = typed(dict(options), TargetOptions, "option")
    cluster = {key: getattr(chosen, key) or source.get(key) for key in ("conf", "cluster", "user")}
    config = typed({"type": "ceph-rbd", **parse_specification(argument), **cluster}, CephConfig, "target")
    return TargetPlan(config, None if chosen.features is None else _bits(chosen.features))


def _bits(features: str) -> int:
    _, rbd = bindings()
    # librbd adds up what is named twice
    names = {name.strip() for name in features.split(",")} - {""}
    try:
        return int(rbd.RBD().features_from_string(",".join(names))) if names else 0
    except rbd.InvalidArgument:
        there = "layering, exclusive-lock, object-map, fast-diff, deep-flatten and journaling"
        raise ConfigError(f"option.features: not all of '{features}' are features; there are {there}") from None


@contextmanager
def opened_target(target: TargetPlan, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Make the image and open it. Empty an existing image if `force` is set.

    Raises:
        TargetError: the image exists, is in use, or can not be made, and nothing was changed; or it can not be emptied,
            and the text says that it is incomplete.
    """
    with ExitStack() as stack:
        # Errors of the restore itself, after the yield, are not Ceph's and pass by unchanged.
        with reported_target(target.title):
            pool = stack.enter_context(opened_pool(target.config, target.title))
            made = _make(pool, target, size, force=force)
            handle = stack.enter_context(bindings()[1].Image(pool, target.config.image))
            if not made:
                _empty(handle, target.title, size)
            if missing := (target.features or 0) & ~handle.features():
                names = bindings()[1].RBD().features_to_string(missing)
                log.warning("%s is without features that were asked for: %s", target.title, names)
        yield RbdTarget(handle, target.title)


def _make(pool: Any, target: TargetPlan, size: int, *, force: bool) -> bool:
    """Make the image; return false if it exists and may be replaced."""
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
    """Make an image `size` zeroes, unless somebody uses it."""
    # The first watcher is this process.
    if len(list(handle.watchers_list())) > 1:
        raise TargetError(f"{title} is in use; is a virtual machine running on it, or a backup under way?")
    with reported_target(f"{title} is incomplete, for it could not be emptied"):
        # Discarding or writing zeroes would take a request for every object, and would leave a parent image in place.
        handle.resize(0)
        handle.resize(size)


class RbdTarget:
    """An image that reads as zeroes until something is written. Several threads may write."""

    parallel = 16
    """How many chunks are written at once: each waits for the cluster."""

    def __init__(self, handle: Any, title: str) -> None:
        self._handle = handle
        self._title = title

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        with reported_target(self._title):
            self._handle.write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Do nothing: the image was made or emptied."""

    def finish(self) -> None:
        """Make everything durable."""
        with reported_target(self._title):
            self._handle.flush()


@contextmanager
def reported_target(title: str) -> Iterator[None]:
    """Raise errors of Ceph as TargetError with a text that begins with `title`."""
    with raising(TargetError, title), reported(title):
        yield
