#!/usr/bin/env python3
"""Builds Debian packages of all distributions: `packaging/debian/build.py WHEELS MAN TARGET`, as `make deb` calls it.

The package `backy` has a virtual environment of Debian's Python in /usr/lib/backy, with the core, the storage `chunked`
and what they need. Each other package adds the files that pip installs for its distribution. Nothing of it is built by
debhelper, which could only pack wheels that Debian has.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = Path("usr/lib/backy")
PYTHON = "/usr/bin/python3"
"""Debian's, as its modules for Ceph, libvirt and NBD are made for it."""
SCRIPTS = {"backy", "python", "python3"}
"""What stays of the environment's programs: those of libraries are for nobody."""


@dataclass(frozen=True)
class Package:
    """A Debian package, which is named like the distribution that it has."""

    name: str
    depends: str = ""
    """Debian's packages without which it does nothing."""
    recommends: str = ""
    also: tuple[str, ...] = ()
    """Other distributions that it has."""

    @property
    def project(self) -> dict[str, str | list[str]]:
        """What the distribution says of itself."""
        folder = ROOT if self.name == "backy" else ROOT / self.name.replace("-", "_")
        project: dict[str, str | list[str]] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        return project

    @property
    def needs(self) -> list[str]:
        """The other packages of backy that it needs, of the same version."""
        found = [re.split(r"[^\w-]", one)[0] for one in self.project["dependencies"]]
        return [f"{one} (= {self.project['version']})" for one in found if one.startswith("backy")]


# in an order in which each one finds what it needs
PACKAGES = (
    Package("backy", recommends="fuse3, zstd", also=("backy-storages-chunked",)),
    Package("backy-sources-file"),
    Package("backy-sources-ceph", "python3-rados, python3-rbd", "ceph-common"),
    Package("backy-sources-flyingcircus"),
    Package("backy-sources-lvm", "lvm2, thin-provisioning-tools"),
    Package("backy-sources-qemu", "python3-libnbd, python3-libvirt", "qemu-utils"),
    Package("backy-storages-cow"),
    Package("backy-files", "guestfish, libguestfs-xfs, nbdkit", "fuse3"),
    Package("backy-drills", "qemu-system-x86"),
    Package("backy-upgrade"),
)


def main(wheels: Path, man: Path, target: Path) -> None:
    """Build all packages into `target`, which is made."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="backy-deb-") as folder:
        work = Path(folder)
        environment = work / "environment"
        run(PYTHON, "-m", "venv", "--without-pip", environment)
        packed: set[Path] = set()
        for package in PACKAGES:
            install(environment, wheels, package)
            tree = work / package.name
            packed |= set(pack(environment, tree / HOME, packed))
            if package.name == "backy":
                add_program(tree)
                add_surroundings(tree, man)
            add_control(tree, package)
            run("dpkg-deb", "--root-owner-group", "-Zzstd", "--build", tree, target)


def run(*command: str | Path) -> str:
    """Run a program, and return what it prints."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603  # named here


def install(environment: Path, wheels: Path, package: Package) -> None:
    """Install a package's distributions with what they need beyond what is there."""
    python = environment / "bin/python"
    names = [next(wheels.glob(f"{name.replace('-', '_')}-[0-9]*.whl")) for name in (package.name, *package.also)]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python))
    run(*pip, "install", "-q", "--no-compile", "--find-links", wheels, *names)
    # files name the place where they will be, and keep the times by which Python knows them
    run(python, "-I", "-m", "compileall", "-q", "-s", environment, "-p", Path("/") / HOME, environment / "lib")


def pack(environment: Path, home: Path, packed: set[Path]) -> Iterator[Path]:
    """Copy what is new in the environment; yield each path below it."""
    for path in sorted(environment.rglob("*")):
        below = path.relative_to(environment)
        if below in packed or (path.is_dir() and not path.is_symlink()) or is_left_out(below):
            continue
        (home / below).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, home / below, follow_symlinks=False)
        yield below


def is_left_out(below: Path) -> bool:
    """Tell whether a file of the environment is for nobody: programs of libraries, and what activates it."""
    return below.parts[0] in {"include", "share"} or (below.parts[0] == "bin" and below.name not in SCRIPTS)


def add_program(tree: Path) -> None:
    """Let the program and the environment know where they will be, and put it in the PATH."""
    program = tree / HOME / "bin/backy"
    _, _, code = program.read_text().partition("\n")
    program.write_text(f"#!/{HOME}/bin/python\n{code}")
    settings = tree / HOME / "pyvenv.cfg"
    settings.write_text(re.sub(r"^command = .*\n", "", settings.read_text(), flags=re.MULTILINE))
    (tree / "usr/bin").mkdir()
    (tree / "usr/bin/backy").symlink_to(f"../lib/{HOME.name}/bin/backy")


def add_surroundings(tree: Path, man: Path) -> None:
    """Add man pages, completions, units, what rotates the logs, and examples."""
    for page in man.iterdir():
        write(tree / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", gzip.compress(page.read_bytes(), mtime=0))
    examples = ROOT / "docs/examples"
    for unit in examples.glob("*.service"):
        text = unit.read_text().replace("/usr/local/bin/", "/usr/bin/").replace("/etc/systemd/system/", "")
        write(tree / f"lib/systemd/system/{unit.name}", text.encode())
    write(tree / "etc/logrotate.d/backy", (examples / "backy.logrotate").read_bytes())
    for name in ("alerts.yaml", "backy.conf", "dashboard.json"):
        write(tree / "usr/share/doc/backy/examples" / name, (examples / name).read_bytes())
    write(tree / "usr/share/doc/backy/NEWS.gz", gzip.compress((ROOT / "CHANGES.md").read_bytes(), mtime=0))
    places = {
        "bash": "bash-completion/completions/backy",
        "zsh": "zsh/vendor-completions/_backy",
        "fish": "fish/vendor_completions.d/backy.fish",
    }
    program = Path(sys.executable).with_name("backy")
    for shell, place in places.items():
        write(tree / "usr/share" / place, run(program, "completion", shell).encode())


def write(path: Path, content: bytes) -> None:
    """Write a file, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def add_control(tree: Path, package: Package) -> None:
    """Add what dpkg has to know, and the licence."""
    write(tree / f"usr/share/doc/{package.name}/copyright", (ROOT / "LICENSE").read_bytes())
    minor = int(run(PYTHON, "-c", "import sys; print(sys.version_info.minor)"))
    depends = [f"python3 (>= 3.{minor}), python3 (<< 3.{minor + 1})"] if package.name == "backy" else package.needs
    fields = {
        "Package": package.name,
        "Version": package.project["version"],
        "Architecture": run("dpkg", "--print-architecture").strip(),
        "Maintainer": "the backy maintainers <backy@localhost>",
        "Section": "admin",
        "Priority": "optional",
        "Depends": ", ".join([*depends, *filter(None, [package.depends])]),
        "Recommends": package.recommends,
        "Provides": ", ".join(f"{one} (= {package.project['version']})" for one in package.also),
        "Installed-Size": run("du", "-sk", tree).split()[0],
        "Description": package.project["description"],
    }
    lines = [f"{key}: {value}\n" for key, value in fields.items() if value]
    write(tree / "DEBIAN/control", "".join(lines).encode())
    if package.name == "backy":
        write(tree / "DEBIAN/conffiles", b"/etc/logrotate.d/backy\n")
        for script in ("postinst", "prerm"):
            shutil.copy(HERE / script, tree / "DEBIAN")
            (tree / "DEBIAN" / script).chmod(0o755)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
