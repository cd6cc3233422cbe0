"""Tells whether there is space for a snapshot. Pools that are full harm the machines whose volumes lie in them."""

from __future__ import annotations

from typing import Final

from backy.api import SourceError
from backy_sources_lvm.volumes import Volume

_SHARE: Final = 5
"""A snapshot of a volume that is not thin gets so many times less than the volume."""
_LEAST: Final = 20
"""With less than this share of the volume, a snapshot is likely to overflow."""


def check_pool(what: str, pool: Volume, limit: float) -> None:
    """Raise SourceError if a thin pool is nearly full, or is known to be broken."""
    used = [("data", pool.data_percent), ("metadata", pool.metadata_percent)]
    # without an active volume in it, a pool tells no figures
    figures = " and ".join(f"{percent} % of its {name}" for name, percent in used if percent)
    if any(percent and float(percent) >= limit for _, percent in used):
        raise SourceError(
            f"{what}: the pool {pool.lv_name} has used {figures}, and a snapshot might fill it; extend the pool by "
            f"lvextend, or set 'pool-limit', now {limit:g} %"
        )


def snapshot_bytes(what: str, origin: Volume, wanted: int | None) -> int:
    """Return the size of a snapshot of a volume that is not thin.

    Raises:
        SourceError: the group has not enough space left for it.
    """
    extent, free = origin.vg_extent_size, origin.vg_free
    least = _rounded(wanted or -(-origin.lv_size // _LEAST), extent)
    if free < least:
        raise SourceError(
            f"{what}: its snapshot needs {least} bytes, and the volume group has {free} left; extend the group, or "
            "set a smaller 'snapshot-size'"
        )
    return least if wanted else min(_rounded(-(-origin.lv_size // _SHARE), extent), free)


def _rounded(size: int, extent: int) -> int:
    """Return `size` as a multiple of an extent, one at least."""
    return max(1, -(-size // extent)) * extent
