from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from backy.config import typed
from backy.errors import ConfigError, RepositoryError
from backy.repository.config import (
    JobConfig,
    PluginSection,
    SourceSection,
    StorageSection,
    VerifierSections,
    dump_job,
    load_job,
    write_job,
)
from backy.repository.sealed import FORMAT


@pytest.fixture
def load(tmp_path: Path):
    """Read a configuration from its text."""

    def read(text: str | bytes) -> JobConfig:
        path = tmp_path / "config"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_job(path)

    return read


def test_a_job_is_read_as_it_was_written(load) -> None:
    job = JobConfig(
        format=3,
        source=SourceSection({"type": "file", "filename": "/ü"}),
        storage=StorageSection({"type": "chunked", "compression": 3}),
        verifier=VerifierSections.from_plain("full"),
    )
    assert load(dump_job(job)) == job
    assert b"verifier" not in dump_job(JobConfig(format=3, source=SourceSection.named("file")))


SECTIONS = """\
format: 3
id: VgTNpAWPaTJ3sbC8zCsrA8
created: '2026-01-01T00:00:00Z'
source:
  pool: vms
  type: ceph-rbd
  nested:
  - a: 8
    day: '2026-02-30'
    'yes': true
storage:
  compression: 3
  type: chunked
earlier_storages:
- type: cow
- type: chunked
  name: old
verifier:
  type: full
schedule:
  daily:
    interval: 1d
    keep: 7
expire: false
"""


def test_a_configuration_is_written_back_byte_for_byte(load) -> None:
    assert dump_job(load(SECTIONS)).decode() == SECTIONS


def test_sections_that_are_one_are_written_twice() -> None:
    options = {"type": "chunked", "more": [1]}
    job = JobConfig(format=3, source=SourceSection(options), storage=StorageSection(options))
    assert dump_job(job).decode().count("type: chunked\n  more:\n  - 1\n") == 2


def test_a_plugin_gets_its_section_as_it_was_written(load) -> None:
    job = load("format: 3\nsource: {filename: /x, type: file}\n")

    assert list(job.source.items()) == [("filename", "/x"), ("type", "file")]
    assert job.source.type == "file"
    assert job.source == PluginSection({"type": "file", "filename": "/x"}) != PluginSection.named("file")


def test_a_name_alone_stands_for_its_type(load) -> None:
    job = load("format: 3\nsource: {type: file}\nstorage: cow\nearlier_storages: [chunked]\nverifier: full\n")

    assert (job.storage, job.verifier) == ({"type": "cow"}, [{"type": "full"}])
    assert [section.type for section in job.earlier_storages] == ["chunked"]


def test_several_verifiers_are_a_list(load) -> None:
    job = load("format: 3\nsource: {type: file}\nverifier: [full, {type: e2fsck, part: 1}]\n")
    assert job.verifier == [{"type": "full"}, {"type": "e2fsck", "part": 1}]
    assert load(dump_job(job).decode()) == job


def test_storage_is_chunked_and_the_verifier_the_sources_choice_by_default(load) -> None:
    job = load("format: 3\nsource: {type: file}\n")

    assert (job.storage, job.verifier) == ({"type": "chunked"}, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "config: expected keys and values, got nothing"),
        ("[1]", r"config: expected keys and values, got \[1\]"),
        ("expire: true", "config: the key 'format' is missing"),
        ('format: "3"\nsource: {type: file}', "config.format: expected a whole number, got '3'"),
        ("format: 3\nsource: file", "config.source: expected keys and values, got 'file'"),
        ("format: 3\nsource: {filename: x}", "config.source: the key 'type' is missing; it names"),
        ("format: 3\nsource: {type: ''}", "config.source: the key 'type' is missing; it names"),
        ("format: 3\nsource: {type: file}\nstorage: {}", "config.storage: the key 'type' is missing; it names"),
        ("format: 3\nsource: {type: file}\nverifier: {}", "config.verifier: the key 'type' is missing; it names"),
        ("format: 3\nsource: {type: file}\nverifier: []", "config.verifier: the list is empty; the verifier 'none'"),
        ("format: 3\nsource: {type: file}\nverifier: [3]", "config.verifier: expected text or keys and values, got 3"),
        ("format: 3\nsource: {type: file}\nverifier: 3", "config.verifier: expected text or keys and values, got 3"),
        (
            "format: 3\nsource: {type: file}\nstorage: {type: x, name: trash}",
            "storage: backy itself uses the name 'trash'",
        ),
        (
            "format: 3\nsource: {type: file}\nstorage: {type: x, name: x.rev}",
            "storage: the storage can not have the folder",
        ),
        (
            "format: 3\nsource: {type: file}\nstorage: {type: x, name: ../y}",
            "storage: the storage can not have the folder",
        ),
        (
            "format: 3\nsource: {type: file}\nstorage: {type: x, name: 3}",
            "storage: the storage can not have the folder 3",
        ),
        (
            "format: 3\nsource: {type: file}\nearlier_storages: [chunked]",
            "two storages would share the folder 'chunks'",
        ),
        ("format: 3\nsource: {type: file}\nstorge: x", "config.storge: unknown key; did you mean 'storage'"),
        ("format: 3\nsource: {1: x, type: file}", "config.source: a key is wrong, expected text, got 1"),
        ("format: 3\nsource: {type: [", "is not YAML: .* line 3"),
        ("format: 3\nsource: {type: !!python/name:os.system ''}", "is not YAML: could not determine a constructor"),
        ("format: 3\nsource: {type: file, filename: 2026-02-30}", "is not YAML: day"),
        (b"\xff\xfe\x00", "is not YAML"),
        ("format: 3\n---\nformat: 3\n", "is not YAML: expected a single document"),
    ],
)
def test_a_wrong_configuration_names_the_key_in_one_line(load, text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error.replace("|", r"\|")) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{type: file, filename: /srv/vm.img}",
        "source: {type: file, filename: /srv/vm.img}\nschedule: {daily: {interval: 1d, keep: 7}}\n",
        '{"source-type": "file", "source": {"filename": "/srv/vm.img"}}',
    ],
    ids=["2.2", "2.5", "2.0 betas"],
)
def test_a_repository_of_backy_2_is_recognised(load, text: str) -> None:
    with pytest.raises(RepositoryError, match=r"is a repository of backy 2: install backy-upgrade, and .* upgrade"):
        load(text)


def test_a_repository_of_a_later_version_is_recognised(load) -> None:
    with pytest.raises(RepositoryError, match="has format 4; this version of backy reads 3"):
        load("format: 4\nwhatever: is new\n")


@pytest.mark.parametrize(
    ("section", "mode"),
    [
        ({"source": {"type": "file", "filename": "/disk"}}, 0o440),
        ({"source": {"type": "flyingcircus", "consul_acl_token": "t"}}, 0o600),
        ({"source": {"type": "flyingcircus", "consul_acl_token_file": "/run/t"}}, 0o440),
        ({"storage": {"type": "s3", "secret-key": "t"}}, 0o600),
        ({"earlier_storages": [{"type": "s3", "secret-key": "t"}]}, 0o600),
        ({"verifier": ["full", {"type": "ask", "password": "t"}]}, 0o600),
        ({"hooks": {"chat": {"Credentials": {"user": "x"}}}}, 0o600),
        ({"hooks": {"chat": {"to": [{"api_key": "x"}]}}}, 0o600),
        ({"hooks": {"chat": {"text": "a token: none"}}}, 0o440),
    ],
)
def test_a_config_with_a_secret_is_its_owners_alone(tmp_path: Path, section: dict[str, Any], mode: int) -> None:
    job = typed({"format": FORMAT, **section}, JobConfig, "config")
    write_job(tmp_path / "config", job)
    assert stat.S_IMODE((tmp_path / "config").stat().st_mode) == mode
    assert load_job(tmp_path / "config") == job
