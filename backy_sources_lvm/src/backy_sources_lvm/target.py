"""Restores into a logical volume, which is made, or emptied if that is forced."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from backy.api import CHUNK_SIZE, Config, ConfigError, RestoreTarget, SourceError, TargetError
from backy.config import typed
from backy.durable import closed_at_end, pwrite_all, zero_device
from backy.errors import raising
from backy_sources_lvm.config import NAME, LvmConfig, parse_specification
from backy_sources_lvm.volumes import Volume, run, volume, volumes

log = logging.getLogger(__name__)
_LOOK: Final = 2**30
"""Bytes after which the pool of a thin volume is looked at again, or sooner if it is small or fuller."""


class TargetOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Options given with `-o`."""

    pool: str | None = None
    """Thin pool that a new volume is made in; empty for a volume that is not thin."""


class TargetPlan(NamedTuple):
    """The volume to restore to."""

    title: str
    """The name of the target in messages."""
    config: LvmConfig
    pool: str | None
    """The pool of a new volume; empty for none, None for that of the volume `like`."""
    like: str | None
    """The job's own volume, if it is in the same group."""


def plan_target(argument: str, options: Mapping[str, str], source: Config) -> TargetPlan:
    """Return the plan for a user's words. The job's own section `source` has the defaults if it is of this type.

    Raises:
        ConfigError: the name of the volume has the wrong form, or an option is unknown or wrong.
    """
    chosen = typed(dict(options), TargetOptions, "option")
    if chosen.pool and not NAME.fullmatch(chosen.pool):
        raise ConfigError(f"option.pool: '{chosen.pool}' is no name of a thin pool; write it without its group")
    config = typed({"type": "lvm", **source, **parse_specification(argument)}, LvmConfig, "target")
    like = source.get("volume") if source.get("group") == config.group else None
    return TargetPlan(f"target {config.specification}", config, chosen.pool, like)


@contextmanager
def opened_target(target: TargetPlan, size: int, *, force: bool) -> Iterator[RestoreTarget]:
    """Make the volume and open it. Replace what is in an existing one if `force` is set.

    Raises:
        TargetError: the volume exists, is in use, or can not be made.
    """
    with raising(TargetError, target.title):
        found = volumes(target.title, target.config.group)
        existing = found.get(target.config.volume)
        if existing is None:
            is_empty = _make(target, found, size)
        else:
            _check(target, existing, found, force=force)
            _resize(target, existing, size)
            is_empty = False
        made, _ = volume(target.title, target.config.group, target.config.volume)
        descriptor = os.open(made.lv_dm_path, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
    with closed_at_end(descriptor):
        opened = VolumeTarget(target, made, descriptor, is_empty=is_empty)
        # what is behind the image may be another machine's
        opened.zero(size, os.lseek(descriptor, 0, os.SEEK_END) - size)
        yield opened


def _make(target: TargetPlan, found: Mapping[str, Volume], size: int) -> bool:
    """Make a volume; return whether it reads as zeroes."""
    like = found.get(target.like or "")
    pool = target.pool if target.pool is not None else like.pool_lv if like else ""
    length = f"{max(size, 1)}b"
    # -W: no question is asked about what an earlier volume has left there
    options = ("--yes", "--wipesignatures", "n", "--name", target.config.volume)
    if not pool:
        run(target.title, "lvcreate", *options, "--zero", "n", "--size", length, target.config.group)
        return False
    if pool not in found or not found[pool].is_pool:
        raise TargetError(f"{target.title}: there is no thin pool {pool} in the volume group {target.config.group}")
    found[pool].check_pool(target.title, target.config.pool_limit)
    run(target.title, "lvcreate", *options, "--virtualsize", length, "--thinpool", pool, target.config.group)
    return True


def _check(target: TargetPlan, existing: Volume, found: Mapping[str, Volume], *, force: bool) -> None:
    """Raise TargetError unless a volume may be overwritten."""
    if not force:
        raise TargetError(f"{target.title} exists already; --force replaces what is in it")
    if existing.is_pool or existing.is_read_only:
        raise TargetError(f"{target.title} is a pool or read-only, and nothing can be restored to it")
    if existing.lv_device_open == "open":
        raise TargetError(f"{target.title} is in use; is it mounted, or does a virtual machine run on it?")
    snapshots = sorted(one.lv_name for one in found.values() if one.origin == existing.lv_name)
    if snapshots and not existing.is_thin:
        raise TargetError(f"{target.title} has snapshots, which would overflow: remove {', '.join(snapshots)} first")
    if snapshots:
        log.warning("%s has snapshots, which keep what it had: %s", target.title, ", ".join(snapshots))


def _resize(target: TargetPlan, existing: Volume, size: int) -> None:
    """Make an existing volume active, and large enough for `size` bytes."""
    path = target.config.specification
    if not existing.lv_active:
        run(target.title, "lvchange", "--activate", "y", "--ignoreactivationskip", path)
    if existing.lv_size < size:
        run(target.title, "lvextend", "--yes", "--size", f"{size}b", path)


class VolumeTarget:
    """An open volume. Several threads may write.

    The pool of a thin one is looked at again and again: other volumes fill it as well.
    """

    def __init__(self, target: TargetPlan, made: Volume, descriptor: int, *, is_empty: bool) -> None:
        self._target = target
        self._pool = made.pool_lv if made.is_thin else ""
        self._descriptor = descriptor
        self._is_empty = is_empty
        self._left = 0
        """Bytes that may be written to the pool before it is looked at again."""
        self._lock = threading.Lock()

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        with self._space(len(data)):
            pwrite_all(self._descriptor, data, offset)

    def zero(self, offset: int, length: int) -> None:
        """Fill a range with zeroes. What reads as zeroes already is not written: a thin volume stays thin."""
        if self._is_empty:
            return
        for start in range(offset, offset + length, CHUNK_SIZE):
            piece = min(offset + length - start, CHUNK_SIZE)
            if os.pread(self._descriptor, piece, start) != bytes(piece):
                with self._space(piece):
                    zero_device(self._descriptor, start, piece)

    def finish(self) -> None:
        """Make everything durable."""
        os.fsync(self._descriptor)

    @contextmanager
    def _space(self, length: int) -> Iterator[None]:
        """Let a thread write `length` bytes, one after the other in a pool; raise TargetError if that fills it."""
        if not self._pool:
            yield
            return
        with self._lock:
            if self._left < length:
                self._left = self._look(length)
            self._left -= length
            yield

    def _look(self, length: int) -> int:
        """Return how much may be written before the next look."""
        # what is only in memory has no space in the pool yet
        os.fsync(self._descriptor)
        title, config = self._target.title, self._target.config
        try:
            pool, _ = volume(title, config.group, self._pool)
            pool.check_pool(title, config.pool_limit, length)
        except SourceError as error:
            raise TargetError(f"{error}; the volume is not complete") from error
        return max(length, min(pool.bytes_left(config.pool_limit) // 2, _LOOK))
