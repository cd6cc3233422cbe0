from __future__ import annotations

from pathlib import Path

import pytest

from backy.errors import ConfigError, RepositoryError
from backy.jobconfig import JobConfig, dump_job, load_job


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
        format=3, source={"type": "file", "filename": "/ü"}, storage={"type": "chunked", "compression": 3},
        verifier={"type": "full"},
    )  # fmt: skip
    assert load(dump_job(job)) == job
    assert b"verifier" not in dump_job(JobConfig(format=3, source={"type": "file"}))


def test_a_name_alone_stands_for_its_type(load) -> None:
    job = load("format: 3\nsource: {type: file}\nstorage: cow\nverifier: full\n")

    assert (job.storage, job.verifier) == ({"type": "cow"}, {"type": "full"})


def test_storage_is_chunked_and_the_verifier_the_sources_choice_by_default(load) -> None:
    job = load("format: 3\nsource: {type: file}\n")

    assert (job.storage, job.verifier) == ({"type": "chunked"}, None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "config: expected `object`, got `null`"),
        ("[1]", "config: expected `object`, got `array`"),
        ("format: 3", "config: object missing required field `source`"),
        ('format: "3"\nsource: {type: file}', "config.format: expected `int`, got `str`"),
        ("format: 3\nsource: file", "config.source: expected `object`, got `str`"),
        ("format: 3\nsource: {filename: x}", "config.source.type: missing"),
        ("format: 3\nsource: {type: ''}", "config.source.type: missing"),
        ("format: 3\nsource: {type: file}\nstorage: {}", "config.storage.type: missing"),
        ("format: 3\nsource: {type: file}\nverifier: {}", "config.verifier.type: missing"),
        ("format: 3\nsource: {type: file}\nverifier: 3", "config.verifier: expected `object | null`, got `int`"),
        ("format: 3\nsource: {type: file}\nstorge: x", "config: object contains unknown field `storge`"),
        ("format: 3\nsource: {1: x, type: file}", "config.source: a key is wrong, expected `str`, got `int`"),
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
    with pytest.raises(RepositoryError, match=r"is a repository of backy 2: .* restore it with the backy that made it"):
        load(text)


def test_a_repository_of_a_later_version_is_recognised(load) -> None:
    with pytest.raises(RepositoryError, match="has format 4; this version of backy reads 3"):
        load("format: 4\nwhatever: is new\n")
