"""The section `source` of a job, and the names of images on the command line."""

import re

import msgspec

from backy.api import ConfigError

# `rbd` takes '/' for the end of a pool's name and '@' for the begin of a snapshot's.
_NAME = re.compile(r"[^/@\0]+")


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
