"""The appliance with a backy that is loaded already, for tests that run many commands in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.appliance.machine import Appliance, Ended

HOME = "/run/preloaded"
FOLDER = "/run/work"
"""Folder for the files of a test, in memory."""
SERVER = Path(__file__).with_name("preloaded.py")
SETUP = f"""
mkdir -p {HOME}/lvm {FOLDER} && modprobe -a dm-thin-pool dm-snapshot dm-log-writes dm-flakey loop fuse nbd
cat > {HOME}/lvm/lvm.conf
"""
LVM = """
devices {
    multipath_component_detection=0 md_component_detection=0 use_devicesfile=0 obtain_device_list_from_udev=0
    global_filter=[ "a|^/dev/vd|", "r|.*|" ]
}
activation { monitoring=0 reserved_memory=0 reserved_stack=0 udev_sync=0 udev_rules=0 }
backup { archive=0 }
global { use_lvmpolld=0 event_activation=0 notify_dbus=0 }
"""
"""LVM without what would cost more than its work: there are no daemons, and a test makes no old state of a group."""
VARIABLES = {
    "PATH": f"{HOME}:/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": FOLDER,
    "LC_ALL": "C.UTF-8",
    "LVM_SYSTEM_DIR": f"{HOME}/lvm",
    "TZ": "UTC",
    "DM_DISABLE_UDEV": "1",  # nobody makes links to devices there, so LVM has to
}


class Guest:
    """Runs commands in the appliance, with `backy` among them."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance

    @classmethod
    @contextmanager
    def prepared(cls, appliance: Appliance) -> Iterator[Guest]:
        """Load backy in the appliance."""
        appliance.run("sh", "-c", SETUP, text=LVM)
        guest = cls(appliance)
        words = [f"{name}={value}" for name, value in VARIABLES.items()]
        # compiling takes longer than all else there
        cache = os.environ.get("PYTHONPYCACHEPREFIX") or str(appliance.folder / "python")
        compiled = {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        subprocess.run([sys.executable, SERVER], env=os.environ | compiled, check=True)
        words.append(f"PYTHONPYCACHEPREFIX={cache}")
        process = appliance.run("env", "-i", *words, sys.executable, SERVER, HOME).out.strip()
        yield guest
        appliance.run("sh", "-c", f"kill {process}; rm -r {HOME} {FOLDER}")

    def shell(self, script: str, *, check: bool = True, limit: float = 300) -> Ended:
        """Run a script of bash, which ends at the first command that fails."""
        words = [f"{name}={value}" for name, value in VARIABLES.items()]
        return self.appliance.run("env", "-i", *words, "bash", "-ec", script, check=check, limit=limit)

    def backy(self, *arguments: object, check: bool = True, limit: float = 300) -> Ended:
        """Run a command of backy, or a file of Python."""
        words = [f"{name}={value}" for name, value in VARIABLES.items()]
        return self.appliance.run("env", "-i", *words, "backy", *arguments, check=check, limit=limit)

    def status(self, repository: str) -> list[dict[str, Any]]:
        """Return what `backy status` tells of the revisions of a repository."""
        found: list[dict[str, Any]] = json.loads(self.backy("-b", repository, "status", "--json").out)["revisions"]
        return found

    def snapshots(self, group: str) -> list[str]:
        """Return the names of backy's snapshots in a volume group."""
        names = self.shell(f"lvs --noheadings -o lv_name {group}").out.split()
        return [name for name in names if ".backy-" in name]
