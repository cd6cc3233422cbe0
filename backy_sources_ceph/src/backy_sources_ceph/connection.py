"""Connects to the cluster that a section `source` or an option names.

Every call has a time-out, and every error is one line.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import msgspec

from backy.api import ConfigError, SourceError
from backy.debian import debian_modules

# `rbd` takes '/' for the end of a pool's name and '@' for the begin of a snapshot's.
_NAME = re.compile(r"[^/@\0]+")
TIMEOUT = 60
"""Seconds to wait for a cluster that does not answer, unless its configuration has another time-out."""
# Ceph's defaults wait for ever or nearly so; values that an administrator chose are left alone.
_TIMEOUTS = {"client_mount_timeout": 300, "rados_osd_op_timeout": 0, "rados_mon_op_timeout": 0}
_REASONS = {
    errno.ENOENT: "it does not exist",
    errno.ETIMEDOUT: "the Ceph cluster does not answer",
    errno.EACCES: "the Ceph user may not do this: is its key right, and has it the capabilities 'profile rbd'?",
    errno.EPERM: "the Ceph user may not do this: has it the capabilities 'profile rbd'?",
}


class CephConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, rename="kebab"):
    """The image and the way to its cluster. A source that builds upon this one adds its own keys."""

    type: str
    pool: str
    image: str
    namespace: str = ""
    """Namespace of the image in its pool."""
    conf: str | None = None
    """Configuration file of the cluster; None for CEPH_CONF or Ceph's usual places."""
    cluster: str | None = None
    """Name of the cluster; None for `ceph`. Its configuration is /etc/ceph/<name>.conf."""
    user: str | None = None
    """Ceph user without the leading `client.`; None stands for Ceph's default, `admin`."""
    full_always: bool = False
    """Whether every backup reads the whole image, and no snapshot is kept between backups."""

    def __post_init__(self) -> None:
        """Refuse names that Ceph could take for something else."""
        # Only the namespace may be empty: pools have one without a name.
        names = {"pool": self.pool, "image": self.image, "namespace": self.namespace or "none"}
        refused = [key for key, name in names.items() if not _NAME.fullmatch(name)]
        wrong = [f"{key} is a name without '/' and '@', not {names[key]!r}" for key in refused]
        if wrong:
            raise ValueError("; ".join(wrong))

    @property
    def specification(self) -> str:
        """The image as the program `rbd` names it."""
        return "/".join(filter(None, (self.pool, self.namespace, self.image)))


def parse_specification(words: str) -> dict[str, str]:
    """Turn POOL/IMAGE or POOL/NAMESPACE/IMAGE into keys of `CephConfig`.

    Raises:
        ConfigError: `words` has another form.
    """
    names = words.split("/")
    if len(names) not in {2, 3} or not all(_NAME.fullmatch(name) for name in names):
        raise ConfigError(f"'{words}' names no RBD image: write POOL/IMAGE or POOL/NAMESPACE/IMAGE")
    pool, *namespace, image = names
    return {"pool": pool, "image": image, **({"namespace": namespace[0]} if namespace else {})}


class UnreachableError(SourceError):
    """The cluster does not answer. Further questions would only take another time-out each."""


def bindings() -> tuple[Any, Any]:
    """Return the modules `rados` and `rbd`.

    Raises:
        MissingModuleError: they can not be imported; the text names the packages.
    """
    rados, rbd = (*debian_modules("python3-rados", "rados"), *debian_modules("python3-rbd", "rbd"))
    return rados, rbd


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Raise errors of Ceph's modules as SourceError with a text that begins with `what`."""
    rados, rbd = bindings()
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        code = getattr(error, "errno", None) or 0
        kind = UnreachableError if code == errno.ETIMEDOUT else SourceError
        raise kind(f"{what}: {_REASONS.get(code, error)}") from error


@contextmanager
def opened_pool(config: CephConfig, title: str | None = None) -> Iterator[Any]:
    """Connect to the cluster and yield the `rados.Ioctx` of the pool and namespace. Messages begin with `title`.

    Raises:
        SourceError: the cluster can not be reached, or has no such pool.
    """
    what = title or f"source {config.specification}"
    rados, _ = bindings()
    with ExitStack() as stack:
        with reported(f"{what}: the configuration of the Ceph cluster, {config.conf or 'ceph.conf'}"):
            connection = rados.Rados(
                conffile=config.conf or rados.Rados.DEFAULT_CONF_FILES,
                clustername=config.cluster,
                rados_id=config.user and config.user.removeprefix("client."),
                # A cache is of no use: every block is read once, in large pieces.
                conf={"rbd_cache": "false"},
            )
        stack.callback(connection.shutdown)
        with reported(f"{what}: connecting to the Ceph cluster"):
            for name, default in _TIMEOUTS.items():
                if float(connection.conf_get(name)) == default:
                    connection.conf_set(name, str(TIMEOUT))
            connection.connect()
        with reported(what):
            # Opening a pool that does not exist would ask the monitors for ever.
            if config.pool not in connection.list_pools():
                raise SourceError(f"{what}: there is no pool '{config.pool}'")
            pool = stack.enter_context(closing(connection.open_ioctx(config.pool)))
        pool.set_namespace(config.namespace)
        yield pool
