"""Debian packages: what they hold, and how they are installed, used and purged in a system that is thrown away."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.packaging.systems import USED, in_system

NAMES = {
    "backy",
    "backy-drills",
    "backy-files",
    "backy-sources-ceph",
    "backy-sources-file",
    "backy-sources-flyingcircus",
    "backy-sources-lvm",
    "backy-sources-qemu",
    "backy-storages-cow",
    "backy-upgrade",
}


def files(package: Path) -> dict[str, str]:
    """Return the mode and owner of each file of a package."""
    listed = subprocess.run(["dpkg-deb", "-c", package], check=True, capture_output=True, text=True).stdout
    return {line.split()[5]: " ".join(line.split()[:2]) for line in listed.splitlines()}


def control(package: Path, field: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", package, field], check=True, capture_output=True, text=True).stdout.strip()


def test_there_is_one_of_each_distribution_and_no_file_is_in_two(packages: dict[str, Path]) -> None:
    assert packages.keys() == NAMES
    found = [name for package in packages.values() for name in files(package) if not name.endswith("/")]
    assert len(found) == len(set(found))
    assert {owner.split()[1] for package in packages.values() for owner in files(package).values()} == {"root/root"}


def test_the_core_has_all_that_belongs_to_it(packages: dict[str, Path]) -> None:
    found = files(packages["backy"])

    for name in (
        "usr/lib/backy/bin/backy",
        "usr/share/man/man1/backy-restore.1.gz",
        "usr/share/man/man5/backy.conf.5.gz",
        "usr/share/bash-completion/completions/backy",
        "usr/share/zsh/vendor-completions/_backy",
        "usr/share/fish/vendor_completions.d/backy.fish",
        "lib/systemd/system/backy.service",
        "lib/systemd/system/backy-mount.service",
        "etc/logrotate.d/backy",
        "usr/share/doc/backy/examples/alerts.yaml",
        "usr/share/doc/backy/examples/backy.conf",
        "usr/share/doc/backy/examples/dashboard.json",
    ):
        assert f"./{name}" in found
    programs = {Path(name).name for name in found if "/bin/" in name and not name.endswith("/")}
    assert {name for name in programs if not name.startswith("python")} == {"backy"}


def test_sources_need_what_debian_has_for_them(packages: dict[str, Path]) -> None:
    assert control(packages["backy-sources-ceph"], "Depends") == "backy (= 3.0.0), python3-rados, python3-rbd"
    assert "python3-libnbd, python3-libvirt" in control(packages["backy-sources-qemu"], "Depends")
    assert "backy-sources-ceph (= 3.0.0)" in control(packages["backy-sources-flyingcircus"], "Depends")
    assert control(packages["backy"], "Provides") == "backy-storages-chunked (= 3.0.0)"
    # of another minor version of Python, nothing in the environment would be found
    version = ["/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)"]
    minor = int(subprocess.run(version, check=True, capture_output=True, text=True).stdout)
    assert control(packages["backy"], "Depends") == f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Path]) -> Iterator[Callable[..., str]]:
    """Run a script of sh, as root, in this system under a layer that takes all that is written."""
    folder = tmp_path_factory.mktemp("system")
    layers = {name: folder / name for name in ("upper", "work", "root")}
    for layer in layers.values():
        layer.mkdir()
    options = f"lowerdir=/,upperdir={layers['upper']},workdir={layers['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, layers["root"]], check=True)
    try:
        debs = layers["root"] / "debs"
        debs.mkdir()
        for package in packages.values():
            (debs / package.name).write_bytes(package.read_bytes())
        yield partial(in_system, layers["root"])
    finally:
        subprocess.run(["umount", layers["root"]], check=True)


def test_a_system_gets_them_uses_them_and_loses_them_without_its_backups(system: Callable[..., str]) -> None:
    before = system("cd / && find usr/lib usr/share usr/bin lib etc -xdev | sort")
    system("dpkg -i /debs/*.deb")

    listed = system("backy plugins --check")
    assert "failed" not in listed
    assert {"ceph-rbd", "file", "flyingcircus", "lvm", "qemu", "chunked", "cow"} <= set(listed.split())
    system(f"mkdir /trial; cd /trial; {USED}")
    assert system("man -w backy-restore backy.conf").split() == [
        "/usr/share/man/man1/backy-restore.1.gz",
        "/usr/share/man/man5/backy.conf.5.gz",
    ]
    assert (
        system("systemd-analyze verify /lib/systemd/system/backy.service /lib/systemd/system/backy-mount.service 2>&1")
        == ""
    )
    # what came compiled is not compiled again, which would leave files behind
    assert system("find /usr/lib/backy -newer /trial/disk.img") == ""

    system(f"dpkg -P {' '.join(sorted(NAMES))}")
    assert system("ls /srv/vm").split()[-1] == "restore.py"
    left = set(system("cd / && find usr/lib usr/share usr/bin lib etc -xdev | sort").split()) - set(before.split())
    assert [name for name in left if "backy" in name] == []
    system("cd /trial && python3 /srv/vm/restore.py last again.img && cmp disk.img again.img")
