"""Connections that nobody else can read, to a server with a certificate of one's own authority."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backy_storages_s3.conftest import Machine
from tests.cluster.gateway import DOMAIN, TLS_PORT, Gateway


@pytest.fixture
def secure(machine: Machine, gateway: Gateway) -> Machine:
    """A machine that uses TLS."""
    machine.section = {**machine.section, "endpoint": gateway.tls}
    machine.image.write_bytes(random.Random(0).randbytes(5_000_000))
    return machine


def test_a_certificate_of_the_own_authority_is_trusted_and_no_other_one(secure, gateway, tmp_path):
    words = ["init", "--storage", secure.place, "file", secure.image]
    done = secure.run(*words, *secure.options(http="false"), code=1)
    assert "certificate is not trusted: name the file of its authority by the key 'ca'" in done.err
    (tmp_path / "none.pem").write_text("no certificate\n")
    for name, text in (("lost.pem", "can not be read: No such file"), ("none.pem", "none.pem has no certificate")):
        assert text in secure.run(*words, *secure.options(http="false", ca=tmp_path / name), code=1).err
    assert not (secure.directory / "config").exists()

    secure.init(http="false", ca=gateway.authority)
    secure.run("backup", "daily")
    secure.rebuild(http="false", ca=gateway.authority)
    assert secure.restored() == secure.image.read_bytes()


def test_a_bucket_may_be_a_part_of_the_name_of_the_server(secure, gateway, tmp_path):
    """As Amazon wants it. The names are in a file of hosts that only these commands see."""
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{gateway.host} {DOMAIN} {secure.section['bucket']}.{DOMAIN}\n")
    secure.section["endpoint"] = f"https://{DOMAIN}:{TLS_PORT}"
    options = secure.options(**{"http": "false", "ca": gateway.authority, "virtual-host": "true"})

    def run(*words: object) -> None:
        backy = [Path(sys.executable).with_name("backy"), "-b", secure.directory, *words]
        script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", hosts, *backy], check=True)

    run("init", "--storage", secure.place, *options, "file", secure.image)
    run("backup", "daily")
    run("restore", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == secure.image.read_bytes()
