"""What a user gets: each distribution installed for real, and run from a folder that is not the checkout."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

THIRD_PARTY = Path(__file__).parent / "third_party_source"


@pytest.fixture(scope="module")
def third_party(environment: Callable, wheels: dict[str, Path]):
    """An environment that has the core, the default storage and somebody else's source."""
    made = environment(wheels["backy_storages_chunked"], "hatchling>=1.21")
    made.pip("install", "--quiet", "--no-compile", "--no-build-isolation", THIRD_PARTY)
    return made


def test_the_core_alone_works_and_names_the_package_to_install(core) -> None:
    assert core.backy("--help").returncode == 0
    assert core.backy("--version").stdout.startswith("backy 3.0.0, Python 3.")
    listed = core.backy("plugins")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[-1] == (
        "no source is installed; install backy-sources-file for image files and block devices"
    )


def test_the_core_alone_refuses_a_source_in_one_line(core, tmp_path: Path) -> None:
    result = core.backy("-b", tmp_path / "vm", "init", "file", "x")

    assert result.returncode == 1
    assert result.stderr == "Error: no source 'file'; install backy-sources-file, which has it\n"
    assert not (tmp_path / "vm").exists()


def test_the_core_alone_says_who_has_a_command(core) -> None:
    result = core.backy("files", "ls", "/")

    assert result.returncode == 2
    assert "No such command 'files'; install backy-files, which has it" in result.stderr


def test_the_core_alone_has_no_source_to_import(core) -> None:
    command = [core.python, "-c", "import backy_sources_file"]

    assert subprocess.run(command, cwd=core.folder, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("backy_sources_file", "file"),
        ("backy_sources_ceph", "ceph-rbd"),
        ("backy_sources_lvm", "lvm"),
        ("backy_sources_qemu", "qemu"),
        ("backy_sources_flyingcircus", "flyingcircus"),
        ("backy_storages_chunked", "chunked"),
        ("backy_storages_cow", "cow"),
        ("backy_files", "files"),
        ("backy_drills", "qemu"),
        ("backy_upgrade", "upgrade"),
    ],
)
def test_each_plugin_is_installed_with_what_it_needs(
    package: str, name: str, environment: Callable, wheelhouse: Path, wheels: dict[str, Path]
) -> None:
    made = environment("--find-links", wheelhouse, wheels[package])

    (plugin,) = (
        line
        for line in json.loads(made.backy("plugins", "--check", "--json").stdout)["plugins"]
        if line["name"] == name
    )
    assert (plugin["state"], plugin["cause"]) == ("ok", None)
    made.pip("check")


def test_an_extra_has_all_that_a_first_backup_needs(
    environment: Callable, wheelhouse: Path, wheels: dict[str, Path], tmp_path: Path
) -> None:
    made = environment("--find-links", wheelhouse, f"backy[file] @ {wheels['backy'].as_uri()}")
    image, target = tmp_path / "disk.img", tmp_path / "restored"
    image.write_bytes(b"content" * 1_000_000)

    for arguments in (["init", "file", image], ["backup", "daily"], ["restore", target]):
        done = made.backy("-b", tmp_path / "vm", *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert target.read_bytes() == image.read_bytes()
    assert "backy-storages-chunked" in made.backy("plugins").stdout


def test_the_default_storage_is_named_where_it_is_missing(
    environment: Callable, wheels: dict[str, Path], tmp_path: Path
) -> None:
    made = environment(wheels["backy_sources_file"])

    refused = made.backy("-b", tmp_path / "vm", "init", "file", "x")
    assert refused.stderr == "Error: no storage 'chunked'; install backy-storages-chunked, which has it\n"
    assert (refused.returncode, (tmp_path / "vm").exists()) == (1, False)


def test_all_extras_can_be_installed(environment: Callable, wheelhouse: Path, wheels: dict[str, Path]) -> None:
    made = environment("--find-links", wheelhouse, f"backy[all] @ {wheels['backy'].as_uri()}")

    listed = json.loads(made.backy("plugins", "--check", "--json").stdout)["plugins"]
    assert [line["name"] for line in listed if line["kind"] == "source"] == [
        "ceph-rbd",
        "file",
        "flyingcircus",
        "lvm",
        "nbd",
        "qemu",
    ]
    assert [line["name"] for line in listed if line["kind"] == "storage"] == ["chunked", "cow"]


def test_a_third_partys_source_backs_up_and_restores(third_party, tmp_path: Path) -> None:
    repository, target = tmp_path / "vm", tmp_path / "restored"

    for arguments in (["init", "pattern", "x:5000000"], ["backup", "daily"], ["backup", "daily"], ["restore", target]):
        done = third_party.backy("-b", repository, *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == b"x" * 5_000_000
    assert "backy-sources-pattern" in third_party.backy("plugins").stdout


def test_a_storage_that_is_not_installed_is_refused_with_the_package_that_has_it(third_party, tmp_path: Path) -> None:
    refused = third_party.backy("-b", tmp_path / "vm", "init", "pattern", "x:100", "--storage", "cow")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: no storage 'cow'; install backy-storages-cow, which has it\n"
    assert not (tmp_path / "vm").exists()
    # nor is it recommended where it could not be chosen
    assert "cow" not in third_party.backy("-b", tmp_path / "vm", "init", "pattern", "x:100").stdout


def test_a_third_partys_broken_parts_harm_only_who_uses_them(third_party, tmp_path: Path) -> None:
    near = "did you mean 'backy_verifier'? there are: backy_verifier"
    cause = f"implements the hook backy_verifer, which does not exist; {near}"
    line = f"verifier 'misspelt' of backy-sources-pattern 0.1 is broken: {cause}"
    listed = {
        (line["kind"], line["name"]): line
        for line in json.loads(third_party.backy("plugins", "--check", "--json").stdout)["plugins"]
    }
    assert listed["verifier", "misspelt"]["state"] == "failed"
    assert listed["verifier", "misspelt"]["cause"] == cause

    for name in ("sound", "broken"):
        assert third_party.backy("-b", tmp_path / name, "init", "pattern", "x:100").returncode == 0
    with (tmp_path / "broken/config").open("a") as config:
        config.write("verifier: misspelt\n")
    failed = third_party.backy("-b", tmp_path / "broken", "backup", "daily")
    assert (failed.returncode, failed.stderr) == (1, f"Error: {line}\n")
    assert third_party.backy("-b", tmp_path / "sound", "backup", "daily").returncode == 0
    usage = " ".join(third_party.backy("--help").stdout.split())
    assert "pattern (broken) command 'pattern' of backy-sources-pattern" in usage
    assert third_party.backy("pattern").stderr == (
        "Error: command 'pattern' of backy-sources-pattern 0.1 is broken: "
        "'backy_sources_pattern_broken:command' is no click command\n"
    )
