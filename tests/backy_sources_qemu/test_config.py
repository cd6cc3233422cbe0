"""How disks are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.api import ConfigError
from backy.config import typed
from backy_sources_qemu.config import NbdConfig, QemuConfig, parse_disk


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("web1/vda", {"domain": "web1", "disk": "vda"}),
        ("my machine/sda", None),
        ("web1/vda/", None),
        ("-c/vda", None),
        ("web1", None),
        ("", None),
        ("/run/web1.qmp,disk", {"qmp": "/run/web1.qmp", "node": "disk"}),
        ("/run/a,b.qmp,disk", {"qmp": "/run/a,b.qmp", "node": "disk"}),
        ("/run/web1.qmp,", None),
        ("/srv/web1.qcow2", {"image": "/srv/web1.qcow2"}),
        ("/srv/a,b/web1.qcow2", {"image": "/srv/a,b/web1.qcow2"}),
        ("./web1.img", {"image": str(Path("web1.img").absolute())}),
        ("/srv/", None),
    ],
)
def test_a_disk_on_the_command_line(words: str, keys: dict[str, str] | None) -> None:
    if keys is None:
        with pytest.raises(ConfigError, match="names no disk: write DOMAIN/DISK"):
            parse_disk(words)
        return
    assert parse_disk(words) == keys
    typed({"type": "qemu", **keys}, QemuConfig, "source")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "write 'domain' and 'disk', 'qmp' and 'node', or 'image'"),
        ({"domain": "web1"}, "'domain' and 'disk' belong together"),
        ({"node": "disk", "image": "/x"}, "'qmp' and 'node' belong together"),
        ({"domain": "web1", "disk": "vda", "image": "/x"}, "libvirt knows where its disk is"),
        ({"image": "web1.img"}, "no absolute path"),
        ({"image": "/x", "format": "vmdk"}, "format"),
        ({"image": "/x", "scratch-limit": "much"}, "scratch-limit"),
    ],
)
def test_a_section_that_names_no_disk_is_refused(keys: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        typed({"type": "qemu", **keys}, QemuConfig, "source")


def test_what_is_no_uri_is_refused() -> None:
    typed({"type": "nbd", "uri": "nbds://server/web1"}, NbdConfig, "source")
    with pytest.raises(ConfigError, match="no URI such as"):
        typed({"type": "nbd", "uri": "server:10809"}, NbdConfig, "source")
