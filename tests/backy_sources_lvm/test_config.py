"""Names of volumes are checked before any program sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backy.api import ConfigError, Job
from backy_sources_lvm import backy_source, backy_source_config
from backy_sources_lvm.target import plan_target

JOB = Job("web1", "job", Path("/nonexistent"))
REFUSED = ["", "vg", "vg/", "/web1", "vg/a/b", "-vg/web1", "vg/-web1", "vg/..", "vg/.", "../vg", "vg/a b", "vg/a;b"]
REFUSED += ["vg/a\0", f"vg/{'a' * 128}"]
ACCEPTED = ["pg_data", "snap", "..x", "+", "w--1"]


@pytest.mark.parametrize("words", ["vg/web1", "/dev/vg/web1"])
def test_a_volume_is_named_as_lvm_does(words: str) -> None:
    assert backy_source_config(words) == {"group": "vg", "volume": "web1"}
    assert backy_source({"type": "lvm", **backy_source_config(words)}, JOB).verifier == "changed"


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_lvm_accepts_is_accepted(name: str) -> None:
    assert backy_source_config(f"vg/{name}") == {"group": "vg", "volume": name}


@pytest.mark.parametrize("words", REFUSED)
def test_what_lvm_would_refuse_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="names no logical volume: write VG/NAME"):
        backy_source_config(words)


@pytest.mark.parametrize("section", [{"group": "-a", "volume": "b"}, {"group": "a", "volume": ".."}])
def test_a_section_with_such_names_is_refused(section: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is a name that LVM would accept"):
        backy_source({"type": "lvm", **section}, JOB)


def test_keys_of_a_section_are_checked() -> None:
    section = {"type": "lvm", "group": "vg", "volume": "web1"}
    backy_source({**section, "pool-limit": 95, "snapshot-size": "10G"}, JOB)
    for key, value in {"pool-limit": 101, "snapshot-size": "much", "pool": "x"}.items():
        with pytest.raises(ConfigError, match=key):
            backy_source({**section, key: value}, JOB)


def test_a_target_has_its_limit_from_the_job() -> None:
    own = {"type": "lvm", "group": "vg", "volume": "web1", "pool-limit": 95}
    plan = plan_target("vg/copy", {}, own)
    assert (plan.config.specification, plan.config.pool_limit, plan.pool, plan.like) == ("vg/copy", 95, None, "web1")
    plan = plan_target("other/copy", {"pool": "thin"}, own)
    assert (plan.config.specification, plan.pool, plan.like) == ("other/copy", "thin", None)
    assert plan_target("vg/copy", {}, {}).config.specification == "vg/copy"


@pytest.mark.parametrize(
    ("words", "options"), [("copy", {}), ("vg/copy", {"pool": "../x"}), ("vg/copy", {"size": "1"})]
)
def test_a_wrong_target_is_refused(words: str, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        plan_target(words, options, {"group": "vg", "volume": "web1"})
