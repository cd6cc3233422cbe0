from __future__ import annotations

from pathlib import Path

import pytest

from backy.api import ConfigError, Job
from backy_sources_ceph import CephSource, backy_source, backy_source_config

JOB = Job("web1", "webid", Path("/srv/web1"))
SOUND = {"type": "ceph-rbd", "pool": "vms", "image": "web1"}


@pytest.mark.parametrize(
    ("argument", "config"),
    [
        ("vms/web1", {"pool": "vms", "image": "web1"}),
        ("vms/customers/web1", {"pool": "vms", "namespace": "customers", "image": "web1"}),
        ("vms/wéb 1'\"", {"pool": "vms", "image": "wéb 1'\""}),
    ],
)
def test_an_image_is_named_as_for_rbd(argument: str, config: dict[str, str]) -> None:
    assert backy_source_config(argument) == config
    source = backy_source(config={"type": "ceph-rbd", **config}, job=JOB)
    assert isinstance(source, CephSource)
    assert source.config.specification == argument
    assert source.verifier == "sample"


@pytest.mark.parametrize("argument", ["", "web1", "/web1", "vms/", "vms//web1", "a/b/c/d", "vms/web1@monday", "a/b\0"])
def test_what_names_no_image_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match="names no RBD image: write POOL/IMAGE or POOL/NAMESPACE/IMAGE"):
        backy_source_config(argument)


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        ({"image": "vms/web1"}, "image is a name without '/' and '@', not 'vms/web1'"),
        ({"pool": ""}, "pool is a name without '/' and '@', not ''"),
        ({"namespace": "a@b"}, "namespace is a name without '/' and '@', not 'a@b'"),
        ({"full_always": True}, "config.source.full_always: unknown key"),
        ({"full-always": "yes"}, r"config\.source\.full-always: expected true or false, got 'yes'"),
        ({"user": 1}, r"config\.source\.user: expected text or nothing, got a number"),
    ],
)
def test_a_wrong_section_is_refused_with_the_key(keys: dict[str, object], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        backy_source(config={**SOUND, **keys}, job=JOB)
