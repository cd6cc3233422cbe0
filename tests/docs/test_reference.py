"""The reference says all that the code has, and nothing that it does not have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest

from backy.api import CHUNK_SIZE, PAGE_SIZE, Leftover
from backy.backup.backup import Backup
from backy.errors import ExitCode
from backy.plugins.discovery import Kind, Plugin, advertised
from backy.repository.config import JobConfig, Quarantine, ScheduledTag, SourceSection
from backy.repository.drills import Drilled
from backy.repository.drills import write as write_drill
from backy.repository.repository import Repository
from backy.retention.rules import Mark, write_mark
from backy_sources_ceph.target import TargetOptions as CephOptions
from backy_sources_lvm.target import TargetOptions as LvmOptions
from tests.revisions import drilled

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"
EXAMPLES = {
    tomllib.loads(path.read_text())["project"]["name"]: path.with_name("README.md")
    for path in DOCS.glob("examples/*/pyproject.toml")
}
"""The pages of distributions that are no part of a release, and have all that there is about them."""
PLUGINS = [
    plugin
    for kind in (Kind.SOURCE, Kind.STORAGE, Kind.VERIFIER, Kind.MOMENT)
    for found in advertised(kind).values()
    for plugin in found
]


def table(page: str | Path, heading: str) -> dict[str, list[str]]:
    """Return the rows below a heading of a page by their first cell, the text in backticks."""
    _, found, section = (REFERENCE / page).read_text().partition(f"\n## {heading}\n")
    assert found, f"{page} has no heading '## {heading}'"
    return rows(section.partition("\n## ")[0])


def rows(text: str) -> dict[str, list[str]]:
    lines = re.findall(r"^\|.*\|$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines[2:]]
    return {row[0].strip("`"): row[1:] for row in cells}


def structs(plugin: Plugin) -> list[type[msgspec.Struct]]:
    module = plugin.entry_point.load()
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__name__.endswith("Config")
    ]


def test_every_exit_code_is_explained() -> None:
    documented = rows((REFERENCE / "exit-codes.md").read_text())
    assert {int(code): row[0] for code, row in documented.items()} == {
        code.value: f"`{code.name}`" for code in ExitCode
    }


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    command = [sys.executable, DOCS / "generate_cli.py", "-"]
    generated = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (REFERENCE / "cli.md").read_text() == generated, "'python docs/generate_cli.py' writes it again"


def test_every_key_of_config_is_explained() -> None:
    assert set(table("configuration.md", "config")) == set(JobConfig.__struct_fields__)
    assert set(table("configuration.md", "quarantine")) == set(Quarantine.__struct_fields__)
    assert set(table("configuration.md", "schedule")) == set(ScheduledTag.__struct_fields__)
    assert set(table("configuration.md", "Any `source`")) == set(SourceSection.CORE)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: f"{plugin.kind.word}-{plugin.name}")
def test_every_key_of_a_plugin_is_explained(plugin: Plugin) -> None:
    for config in structs(plugin):
        page = EXAMPLES.get(plugin.distribution, "configuration.md")
        documented = table(page, f"{plugin.kind.word} `{plugin.name}`")
        assert {name: row[-1] == "required" for name, row in documented.items()} == {
            field.encode_name: field.required for field in msgspec.structs.fields(config)
        }


@pytest.mark.parametrize(("name", "options"), [("ceph-rbd", CephOptions), ("lvm", LvmOptions)])
def test_every_option_of_a_target_is_explained(name: str, options: type[msgspec.Struct]) -> None:
    assert list(table("configuration.md", f"target `{name}`")) == list(options.__struct_fields__)


def test_the_plugins_that_can_be_used_have_sections() -> None:
    usable = {plugin.name for plugin in PLUGINS if structs(plugin)}
    assert usable >= {"file", "chunked", "changed", "full", "none", "sample"}


def test_every_key_of_status_is_explained(repository: Repository, backy) -> None:
    Backup(repository, ("daily",)).run()
    printed = json.loads(backy("-b", repository.directory, "status", "--json").out)
    (revision,) = printed["revisions"]

    assert list(table("status.md", "The object")) == list(printed)
    assert list(table("status.md", "revisions")) == list(revision)
    assert list(table("status.md", "verification")) == list(revision["verification"])
    assert list(table("status.md", "held")) == list(printed["held"])
    assert set(table("status.md", "left")) == {field.name for field in fields(Leftover)}


def test_every_column_of_status_is_explained(repository: Repository, backy) -> None:
    Backup(repository, ("daily",)).run()
    heading = backy("-b", repository.directory, "status", "--wide").out.splitlines()[0]
    columns = re.sub(r" \(.*?\)", "", heading).split()
    assert list(table("status.md", "The table")) == columns


def test_every_member_of_a_drill_is_explained() -> None:
    documented = rows((REFERENCE / "drill.md").read_text())
    assert list(documented) == [field.name for field in fields(Drilled)]


def test_every_file_of_a_repository_is_explained(repository: Repository, image: Path, backy, mount) -> None:
    Backup(repository, ("daily",)).run()
    for page in (0, 1):
        with image.open("r+b") as stream:
            stream.seek(page * PAGE_SIZE)
            stream.write(b"changed")
        Backup(repository, ("daily",)).run()
    next(repository.directory.glob("chunks/*/*.delta")).chmod(0o600)
    with next(repository.directory.glob("chunks/*/*.delta")).open("r+b") as stream:
        stream.truncate(50)
    logged = ("-l", repository.directory / "backy.log")
    assert backy("-b", repository.directory, *logged, "scrub", "deep").code == ExitCode.FAILED
    assert CHUNK_SIZE > 50
    raw = mount("btrfs") / "vm"
    assert backy("-b", raw, "init", "file", image, "--storage", "cow").code == ExitCode.DONE
    assert backy("-b", raw, "backup", "daily").code == ExitCode.DONE
    write_mark(repository.directory, Mark(seq=3))
    last = repository.records.history()[-1].id
    write_drill(repository.records, last, drilled(last))
    repository.config.attachments = {"name": "hostname"}
    Backup(repository, ("daily",)).run()
    (repository.directory / "in-use").mkdir()
    (repository.directory / "in-use" / repository.records.linked()).touch()
    for unfinished in (repository.directory / "chunks", raw / "cow"):
        (unfinished / "unfinished").touch()

    patterns = {
        "<id>": "[A-Za-z0-9-]{8,}",
        "<chunk>": "[0-9a-f]{64}",
        "xx": "[0-9a-f]{2}",
        "<report>": "[A-Za-z0-9-]+",
        "<block>": r"[\w.]+",
    }
    documented = {}
    for name in rows((REFERENCE / "repository.md").read_text()):
        parts = re.split(f"({'|'.join(patterns)})", name)
        documented[name] = "".join(patterns.get(part, re.escape(part)) for part in parts)
    files = [
        path.relative_to(directory).as_posix()
        for directory in (repository.directory, raw)
        for path in directory.rglob("*")
        if not path.is_dir()
    ]
    assert [file for file in files if not any(re.fullmatch(pattern, file) for pattern in documented.values())] == []
    assert [
        name for name, pattern in documented.items() if not any(re.fullmatch(pattern, file) for file in files)
    ] == []
