"""A Debian 12 with nothing else gets backy's packages by apt, and a disk back."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.packaging.systems import USED, in_system


def test_a_clean_debian_gets_a_disk_back(
    packages: dict[str, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    root = tmp_path / "debian"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, stdout=subprocess.DEVNULL)
    (root / "debs").mkdir()
    for name in ("backy", "backy-sources-file"):
        (root / "debs" / packages[name].name).write_bytes(packages[name].read_bytes())

    begun = time.monotonic()
    in_system(root, "apt-get install -q -y --no-install-recommends /debs/*.deb")
    in_system(root, f"mkdir /trial; cd /trial; {USED}")
    record_property("seconds from the packages to a restored disk", round(time.monotonic() - begun))
    in_system(root, "apt-get purge -q -y backy backy-sources-file; ls /srv/vm/restore.py; ! test -e /usr/lib/backy")
