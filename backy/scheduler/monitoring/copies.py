"""Repositories in the base directory that no job backs up, as they have no source: copies of other machines."""

from __future__ import annotations

import os
from collections.abc import Container
from contextlib import suppress
from pathlib import Path

from backy.errors import BackyError
from backy.repository.config import CONFIG, load_job


def copies(base_dir: Path, jobs: Container[str]) -> tuple[str, ...]:
    """Return the names of the repositories without a source, sorted, except those of `jobs`; raises OSError."""
    with os.scandir(base_dir) as entries:
        names = sorted(
            entry.name for entry in entries if entry.name not in jobs and entry.is_dir(follow_symlinks=False)
        )
    return tuple([name for name in names if _is_copy(base_dir / name)])


def _is_copy(directory: Path) -> bool:
    # what can not be read counts as nothing, and a job would tell of it
    with suppress(BackyError, OSError):
        return load_job(directory / CONFIG).source is None
    return False
