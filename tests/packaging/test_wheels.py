from __future__ import annotations

import re
import tomllib
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "backy",
    "backy_sources_file",
    "backy_sources_ceph",
    "backy_sources_lvm",
    "backy_sources_qemu",
    "backy_sources_flyingcircus",
    "backy_storages_chunked",
    "backy_storages_cow",
    "backy_files",
    "backy_drills",
    "backy_upgrade",
)


def requirements(package: str) -> dict[str, list[str]]:
    """Return what a distribution declares to need, by extra; "" is what it always needs."""
    folder = ROOT if package == "backy" else ROOT / package
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return {"": project["dependencies"], **project.get("optional-dependencies", {})}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_holds_its_own_package_and_nothing_else(package: str, wheels: dict[str, Path]) -> None:
    with ZipFile(wheels[package]) as wheel:
        names = wheel.namelist()

    assert f"{package}/py.typed" in names
    of_man = {"backy-3.0.0.data"} if package == "backy" else set()
    assert {name.partition("/")[0] for name in names} == {package, f"{package}-3.0.0.dist-info"} | of_man
    assert [name for name in names if "__pycache__" in name] == []


def test_the_wheel_of_backy_has_man_pages(wheels: dict[str, Path]) -> None:
    with ZipFile(wheels["backy"]) as wheel:
        pages = [name for name in wheel.namelist() if ".data/" in name]

    folder = "backy-3.0.0.data/data/share/man"
    assert {f"{folder}/man1/backy.1", f"{folder}/man1/backy-restore.1", f"{folder}/man5/backy.conf.5"} <= set(pages)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_holds_every_file_of_its_package(package: str, wheels: dict[str, Path]) -> None:
    """Templates and texts as well, and not only modules."""
    folder = ROOT if package == "backy" else ROOT / package / "src"
    with ZipFile(wheels[package]) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith(f"{package}/")}

    there = {path for path in (folder / package).rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert packed == {str(path.relative_to(folder)) for path in there}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_entry_point_names_a_module_of_its_own_wheel(package: str, wheels: dict[str, Path]) -> None:
    with ZipFile(wheels[package]) as wheel:
        names = wheel.namelist()
        entry_points = wheel.read(f"{package}-3.0.0.dist-info/entry_points.txt").decode()

    modules = re.findall(r"^\S+ = ([\w.]+)", entry_points, flags=re.MULTILINE)
    assert modules
    for module in modules:
        path = module.replace(".", "/")
        assert f"{path}.py" in names or f"{path}/__init__.py" in names


@pytest.mark.parametrize("package", PACKAGES)
def test_every_dependency_has_a_lower_bound(package: str) -> None:
    needed = [requirement for group in requirements(package).values() for requirement in group]

    assert [requirement for requirement in needed if ">=" not in requirement] == []


@pytest.mark.parametrize("package", PACKAGES[1:])
def test_a_plugin_needs_this_line_of_the_core(package: str) -> None:
    assert "backy>=3,<4" in requirements(package)[""]


def test_the_core_needs_no_plugin() -> None:
    assert [requirement for requirement in requirements("backy")[""] if "backy" in requirement] == []


def test_extras_install_the_plugins() -> None:
    extras = requirements("backy")
    sources = [f"backy-sources-{name}>=3,<4" for name in ("file", "ceph", "lvm", "qemu", "flyingcircus")]
    chunked, cow = "backy-storages-chunked>=3,<4", "backy-storages-cow>=3,<4"

    # a source alone can keep nothing
    assert [extras[name] for name in ("file", "ceph", "lvm", "qemu", "flyingcircus")] == [
        [one, chunked] for one in sources
    ]
    assert (extras["cow"], extras["all"]) == (
        [cow],
        [*sources, chunked, cow, "backy-files>=3,<4", "backy-drills>=3,<4", "backy-upgrade>=3,<4"],
    )
    assert chunked in extras["testing"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_metadata_tells_license_python_and_what_it_is(package: str, wheels: dict[str, Path]) -> None:
    with ZipFile(wheels[package]) as wheel:
        metadata = message_from_bytes(wheel.read(f"{package}-3.0.0.dist-info/METADATA"))

    assert metadata["Name"] == package.replace("_", "-")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "GPL-3.0-or-later"
    assert metadata["Summary"]
