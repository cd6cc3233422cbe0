"""Connects to a Ceph cluster. Every call has a time-out, and every error is one line."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from backy.api import SourceError
from backy.debian import debian_modules
from backy_sources_ceph.config import CephConfig

TIMEOUT = 60
"""Seconds to wait for a cluster that does not answer, unless its configuration has another time-out."""


class UnreachableError(SourceError):
    """The cluster does not answer. Further questions would only take another time-out each."""


# Ceph's defaults wait for ever or nearly so; values that an administrator chose are left alone.
_TIMEOUTS = {"client_mount_timeout": 300, "rados_osd_op_timeout": 0, "rados_mon_op_timeout": 0}
_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ETIMEDOUT: "the Ceph cluster does not answer",
    errno.EACCES: "the Ceph user may not do this: is its key right, and has it the capabilities 'profile rbd'?",
    errno.EPERM: "the Ceph user may not do this: has it the capabilities 'profile rbd'?",
}


def bindings() -> tuple[Any, Any]:
    """Return the modules `rados` and `rbd`.

    Raises:
        MissingModuleError: they can not be imported; the text names the packages.
    """
    rados, rbd = (*debian_modules("python3-rados", "rados"), *debian_modules("python3-rbd", "rbd"))
    return rados, rbd


def reason(code: int) -> str:
    """Return the text for an error number of Ceph."""
    return _REASONS.get(code, os.strerror(code))


def failure(what: str, code: int | None, otherwise: object) -> SourceError:
    """Return an error that begins with `what` and ends with the text for `code`, or with `otherwise` without one."""
    kind = UnreachableError if code == errno.ETIMEDOUT else SourceError
    return kind(f"{what}: {_REASONS.get(code or 0, otherwise)}")


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Raise errors of Ceph's modules as SourceError with a text that begins with `what`."""
    rados, rbd = bindings()
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        raise failure(what, getattr(error, "errno", None), error) from error


@contextmanager
def opened_pool(config: CephConfig, title: str | None = None) -> Iterator[Any]:
    """Connect to the cluster and yield the `rados.Ioctx` of the pool and namespace. Messages begin with `title`.

    Raises:
        SourceError: the cluster can not be reached, or has no such pool.
    """
    what = title or f"source {config.specification}"
    with _connected(config, what) as connection:
        with reported(what):
            # Opening a pool that does not exist would ask the monitors for ever.
            if config.pool not in connection.list_pools():
                raise SourceError(f"{what}: there is no pool '{config.pool}'")
            pool = connection.open_ioctx(config.pool)
        with closing(pool):
            pool.set_namespace(config.namespace)
            yield pool


@contextmanager
def _connected(config: CephConfig, what: str) -> Iterator[Any]:
    rados, _ = bindings()
    with reported(f"{what}: the configuration of the Ceph cluster, {config.conf or 'ceph.conf'}"):
        connection = rados.Rados(
            conffile=config.conf or rados.Rados.DEFAULT_CONF_FILES,
            clustername=config.cluster,
            rados_id=config.user and config.user.removeprefix("client."),
            # A cache is of no use: every block is read once, in large pieces.
            conf={"rbd_cache": "false"},
        )
    try:
        with reported(f"{what}: connecting to the Ceph cluster"):
            for name, default in _TIMEOUTS.items():
                if float(connection.conf_get(name)) == default:
                    connection.conf_set(name, str(TIMEOUT))
            connection.connect()
        yield connection
    finally:
        connection.shutdown()
