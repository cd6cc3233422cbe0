"""Tells whether there is space for a snapshot. Pools that are full harm the machines whose volumes lie in them."""

from typing import Final

from backy.api import SourceError
from backy_sources_lvm.volumes import Volume

_SHARE: Final = 5
"""A snapshot of a volume that is not thin gets so many times less than the volume."""
_LEAST: Final = 20
"""With less than this share of the volume, a snapshot is likely to overflow."""


def check_pool(what: str, pool: Volume, limit: float, more: int = 0) -> None:
    """Raise SourceError if a thin pool is nearly full, or would be with so many bytes `more`."""
    used = [("data", pool.data_percent, 100 * more / max(pool.lv_size, 1)), ("metadata", pool.metadata_percent, 0)]
    # without an active volume in it, a pool tells no figures
    figures = " and ".join(f"{percent} % of its {name}" for name, percent, _ in used if percent)
    if any(percent and float(percent) + added >= limit for _, percent, added in used):
        raise SourceError(
            f"{what}: the pool {pool.lv_name} has used {figures}, and {f'{more} bytes more' if more else 'a snapshot'} "
            f"might fill it; extend the pool by lvextend, or set 'pool-limit', now {limit:g} %"
        )


def bytes_left(pool: Volume, limit: float) -> int:
    """Return how much may be written to a pool before it is nearly full."""
    return int(pool.lv_size * (limit - float(pool.data_percent or 0)) / 100)


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
