"""A moment under a real systemd, in a guest that has nothing else: it ends though all of the service is killed."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from backy import resting
from tests.appliance.machine import CHEAP, kernel

PROGRAMS = ("/lib/systemd/systemd", "/usr/bin/systemd-run", "/usr/bin/timeout", "/usr/bin/head", "/bin/dash")
OTHERS = ("cat", "cut", "kill", "mkfifo")
"""What busybox is called by."""
NEEDED = ("qemu-system-x86_64", "busybox", "cpio", *PROGRAMS)
SERVICE = """[Unit]
DefaultDependencies=no
[Service]
Type=exec
ExecStart=/bin/sh /service
"""
# the main process of backy is this shell; whoever is in its control group is killed, as by the OOM killer of systemd
SCRIPT = """
export VARIABLE=kept
cd "/work folder"
mkfifo /tmp/in /tmp/out
{scope} sh -c "$(cat /sleeper)" 300 sh /after </tmp/in >/tmp/out &
exec 3>/tmp/in 4</tmp/out
read line <&4
echo "started: $(cat /proc/self/cgroup)" >/dev/ttyS0
kill -9 $(cat "/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cgroup.procs")
"""
AFTER = 'echo "after: $VARIABLE, $PWD, $(cat /proc/self/cgroup)" >/dev/ttyS0'
CMDLINE = f"console=ttyS0 quiet panic=1 {CHEAP} rdinit=/lib/systemd/systemd systemd.unit=service.service"


def copy(program: str, tree: Path) -> None:
    """Copy a program and its libraries to where they are here."""
    libraries = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    for file in (program, *(word for word in libraries if word.startswith("/"))):
        (tree / file[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tree / file[1:])


def make_initramfs(tree: Path) -> bytes:
    for name in ("bin", "proc", "sys", "dev", "run", "tmp", "var/log", "etc/systemd/system", "work folder"):
        (tree / name).mkdir(parents=True)
    for program in PROGRAMS:
        copy(program, tree)
    shutil.copy("/bin/busybox", tree / "bin")
    for name in OTHERS:
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "bin/sh").symlink_to("dash")
    (tree / "etc/os-release").write_text("ID=guest\n")
    (tree / "etc/machine-id").write_text("1" * 32)
    (tree / "etc/systemd/system/service.service").write_text(SERVICE)
    (tree / "after").write_text(AFTER)
    (tree / "sleeper").write_text(resting._SLEEPER)
    (tree / "service").write_text(SCRIPT.format(scope=" ".join(resting._SCOPE)))
    names = "\n".join(str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))])
    packed = ["cpio", "--quiet", "-o", "-H", "newc"]
    return subprocess.run(packed, cwd=tree, input=names.encode(), stdout=subprocess.PIPE, check=True).stdout


def test_writers_go_on_when_all_of_the_service_is_killed(tmp_path: Path) -> None:
    absent = [name for name in NEEDED if shutil.which(name) is None]
    version = kernel()
    if absent or not version:
        pytest.skip(f"NOT TESTED: moments under systemd; missing: {absent or 'a cloud kernel'}")
    console, initramfs = tmp_path / "console", tmp_path / "initramfs"
    initramfs.write_bytes(make_initramfs(tmp_path / "tree"))
    flags = ["-accel", "tcg,thread=multi", "-m", "256", "-display", "none", "-nodefaults", "-no-user-config"]
    boots = ["-kernel", f"/boot/vmlinuz-{version}", "-initrd", initramfs, "-append", CMDLINE]
    with subprocess.Popen(["qemu-system-x86_64", *flags, *boots, "-serial", f"file:{console}"]) as guest:
        try:
            end = time.monotonic() + 240
            while guest.poll() is None and "after: " not in told(console) and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            guest.kill()
    assert "started: 0::/system.slice/service.service" in told(console)
    assert "after: kept, /work folder, 0::/system.slice/run-" in told(console)


def told(console: Path) -> str:
    return console.read_text(errors="replace") if console.exists() else ""
