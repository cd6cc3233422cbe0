"""Copies in one process, and a real sshd that serves a folder by keys which may do one thing each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.copying import _first, copy, origin, talk
from tests.ports import unused_port

__all__ = ["_first", "copy", "origin", "talk"]
BACKY = Path(sys.executable).with_name("backy")


@pytest.fixture(scope="session")
def _sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a program `ssh` that knows the hosts `reader` and `writer`, and `base`, which they serve."""
    if os.geteuid() != 0 or shutil.which("sshd") is None:
        pytest.skip("NOT TESTED: copies by ssh need root and sshd")
    folder = tmp_path_factory.mktemp("ssh")
    (folder / "base").mkdir()
    (folder / "base/.backy").touch()
    for name in ("host", "reader", "writer"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    keys = {name: (folder / f"{name}.pub").read_text() for name in ("host", "reader", "writer")}
    port = unused_port()
    (folder / "authorized_keys").write_text(
        "".join(
            f'restrict,command="{sys.executable} {BACKY} serve {mode} {folder}/base" {keys[name]}'
            for name, mode in (("reader", "--read-only"), ("writer", "--append"))
        )
    )
    (folder / "sshd_config").write_text(
        # PAM lets root in, whose password is locked
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM yes\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {keys['host']}")
    (folder / "ssh_config").write_text(
        f"Host *\n HostName 127.0.0.1\n Port {port}\n User root\n IdentitiesOnly yes\n IdentityFile {folder}/%n\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile none\n"
    )
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen([shutil.which("sshd") or "", "-D", "-e", "-f", folder / "sshd_config"]) as daemon:
        try:
            _await(port)
            yield folder
        finally:
            daemon.terminate()


def _await(port: int) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return


@pytest.fixture
def base(_sshd: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that `ssh://reader/NAME` and `ssh://writer/NAME` are served from, empty at first."""
    monkeypatch.setenv("PATH", f"{_sshd}/bin:{os.environ['PATH']}")
    yield _sshd / "base"
    for path in (_sshd / "base").iterdir():
        if path.name != ".backy":
            shutil.rmtree(path)
