from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backy.api import ConfigError, Job, SourceError
from backy.repository.config import SourceSection
from backy.repository.repository import Repository
from backy_sources_flyingcircus import FlyingCircusSource, backy_restore_target, backy_source, backy_source_config

TOKEN = "secret-7f3a"
SECTION = {"type": "flyingcircus", "pool": "vms", "image": "web1.root", "vm": "web1"}


def source(tmp_path: Path, **keys: object) -> FlyingCircusSource:
    made = backy_source({**SECTION, **keys}, Job("vm", "vm-id", tmp_path))
    assert isinstance(made, FlyingCircusSource)
    return made


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("vms/web1.root,web1", {"pool": "vms", "image": "web1.root", "vm": "web1"}),
        (" vms/n/i , web1 ", {"pool": "vms", "namespace": "n", "image": "i", "vm": "web1"}),
        (
            "vms/i,web1,file:/run/token",
            {"pool": "vms", "image": "i", "vm": "web1", "consul_acl_token_file": "/run/token"},
        ),
        (
            "vms/i,web1,file:token",
            {"pool": "vms", "image": "i", "vm": "web1", "consul_acl_token_file": str(Path.cwd() / "token")},
        ),
    ],
)
def test_init_takes_image_machine_and_the_file_of_a_token(words: str, keys: dict[str, str]) -> None:
    assert backy_source_config(words) == keys


@pytest.mark.parametrize(
    "words",
    [
        *("", "vms/web1", "vms/web1,", "vms/web1,,", f"vms/web1,web1,{TOKEN}", f"vms/web1,web1,{TOKEN},x"),
        *("web1,web1", "a/b/c/d,v", "vms/web1,web1,", "vms/web1,web1,file:", f"vms/web1,web1,file:A,{TOKEN}"),
    ],
)
def test_other_words_are_refused_without_a_token(words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        backy_source_config(words)
    assert "POOL/IMAGE" in str(refused.value)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"vm": ""}, "vm is a name of up to 255 printable characters"),
        ({"vm": " "}, "vm is a name of up to 255 printable characters"),
        ({"vm": "a\nb"}, "vm is a name of up to 255 printable characters"),
        ({"vm": "x" * 256}, "vm is a name of up to 255 printable characters"),
        ({"image": "a/b"}, "image is a name without '/' and '@'"),
        ({"consul_acl_token": TOKEN, "consul_acl_token_file": "/t"}, "leave one of them out"),
        ({"consul_acl_token": 7}, "config.source.consul_acl_token: expected"),
        ({"consul_acl_token_file": "t"}, "config.source.consul_acl_token_file: 't' is no absolute path"),
        ({"snapshot-timeout": "soon"}, "config.source.snapshot-timeout"),
        ({"token": TOKEN}, "config.source.token: unknown key"),
    ],
)
def test_what_is_wrong_is_told_without_the_token(tmp_path: Path, keys: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError) as refused:
        source(tmp_path, **keys)
    assert error in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_the_token_may_be_in_a_file_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUL_HTTP_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)

    assert source(tmp_path).config.token() is None
    assert source(tmp_path, consul_acl_token_file=str(file)).config.token() == TOKEN
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of the environment")
    assert source(tmp_path).config.token() == "of the environment"
    assert source(tmp_path, consul_acl_token=TOKEN).config.token() == TOKEN


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content:
        file.write_bytes(content)
    with pytest.raises(SourceError, match=f"consul_acl_token_file {file}: (No such file|it is no text)"):
        source(tmp_path, consul_acl_token_file=str(file)).config.token()


def test_a_file_that_everybody_can_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("backy_sources_flyingcircus").propagate = True
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)

    assert source(tmp_path, consul_acl_token_file=str(file)).config.token() == TOKEN
    assert f"{file} has a token of Consul and can be read by everybody: 'chmod o= {file}'" in caplog.text


def test_the_token_is_where_it_was_put_and_nowhere_else(backy: Callable, tmp_path: Path) -> None:
    program = [sys.executable, "-c", "from backy.cli.main import main; main()", "-v", "-l", tmp_path / "log"]
    command = [*program, "-b", tmp_path / "vm", "init", "flyingcircus", "vms/web1.root,web1"]
    environment = {**os.environ, "CONSUL_HTTP_TOKEN": TOKEN}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    config = tmp_path / "vm/config"

    assert TOKEN not in done.stdout + done.stderr + (tmp_path / "log").read_text() + config.read_text()
    repository = Repository.open(tmp_path / "vm")
    options = {**repository.config.source, "consul_acl_token": TOKEN}
    repository.write_config(msgspec.structs.replace(repository.config, source=SourceSection(options)))
    assert f"consul_acl_token: {TOKEN}" in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    for words in (["status"], ["status", "--json"], ["-v", "backup", "daily"], ["plugins", "show", "flyingcircus"]):
        shown = backy("-b", tmp_path / "vm", *words)
        assert TOKEN not in shown.out + shown.err


def test_images_can_be_restored_to_as_those_of_ceph_rbd(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write POOL/IMAGE"):
        backy_restore_target("web1", {}, {}, 1, False)
