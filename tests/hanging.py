"""A file system with nothing in it, for tests that stop its program: `python -m tests.hanging MOUNTPOINT`."""

from __future__ import annotations

import errno
import os
import stat
import sys

os.environ.setdefault("FUSE_LIBRARY_NAME", "fuse3")
import mfusepy  # reads the variable


class Nothing(mfusepy.Operations):
    use_ns = True

    def init(self, path: str) -> None:
        print("mounted", flush=True)  # noqa: T201  # who starts it waits for that

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if path != "/":
            raise mfusepy.FuseOSError(errno.ENOENT)
        return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", ".."]


if __name__ == "__main__":
    mfusepy.FUSE(Nothing(), sys.argv[1], foreground=True, attr_timeout=0, entry_timeout=0)
