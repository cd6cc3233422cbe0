"""Systems that Debian packages are tried in."""

from __future__ import annotations

import subprocess
from pathlib import Path

USED = """
head -c 9M /dev/urandom > disk.img
backy -b /srv/vm init file disk.img
backy -b /srv/vm backup daily
backy -b /srv/vm restore restored.img
cmp disk.img restored.img
"""
"""What an operator does first."""


def in_system(root: Path, script: str) -> str:
    """Run a script below `root`, with processes and devices of this machine; return what it prints."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    inside = f"mount -t proc proc {root}/proc && mount --bind /dev {root}/dev && exec chroot {root} sh -exc '{script}'"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
