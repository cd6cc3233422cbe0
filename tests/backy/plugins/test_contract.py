from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from backy.errors import PluginError
from backy.plugins.discovery import Kind
from backy.plugins.loading import load

HEAD = "from backy.hookspecs import hookimpl\n"
CONFIG = "@hookimpl\ndef backy_source_config(argument): return {}\n"
BREACHES = {
    "exception": ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    "assertion": ("assert not 'true'", "AssertionError"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "panic": ("raise BaseException('panic')", "BaseException: panic"),
    "import": ("import rados_of_nobody", "ModuleNotFoundError: No module named 'rados_of_nobody'"),
    "syntax": ("def", "SyntaxError: invalid syntax"),
    "misspelt": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_sorce(config): ...",
        (
            "implements the hook backy_sorce, which does not exist; did you mean 'backy_source'? there are: "
            "backy_live_restore, backy_restore_target, backy_source, backy_source_config"
        ),
    ),
    "nowhere near": (
        f"{HEAD}{CONFIG}@hookimpl\ndef xyzzy(config): ...",
        (
            "implements the hook xyzzy, which does not exist; there are: backy_live_restore, backy_restore_target, "
            "backy_source, backy_source_config"
        ),
    ),
    "wrong argument": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config, jbo): ...",
        "its hook backy_source has the arguments (config, jbo); it is called with (config, job), by position",
    ),
    "default": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config, job=None): ...",
        "its hook backy_source has the arguments (config, job=None); it is called with (config, job), by position",
    ),
    "foreign default": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config, timeout=3): ...",
        "its hook backy_source has the arguments (config, timeout=3); it is called with (config, job), by position",
    ),
    "keyword only": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config, *, job): ...",
        "its hook backy_source has the arguments (config, *, job); it is called with (config, job), by position",
    ),
    "wrapper": (
        f"{HEAD}{CONFIG}@hookimpl(wrapper=True)\ndef backy_source(config): yield",
        "implements the hook backy_source as a wrapper, but there is nothing that it could wrap",
    ),
    "other major contract": (
        f'{HEAD}BACKY_CONTRACT = "2.0"\n',
        "its BACKY_CONTRACT is '2.0', but this version of backy has '1.0'",
    ),
    "later minor contract": (
        f'{HEAD}BACKY_CONTRACT = "1.999"\n',
        "its BACKY_CONTRACT is '1.999', but this version of backy has '1.0'",
    ),
    "no contract": (
        f"{HEAD}BACKY_CONTRACT = 1\n",
        "its BACKY_CONTRACT is 1, but this version of backy has '1.0'",
    ),
    "missing": (f"{HEAD}{CONFIG}", "does not implement the hook backy_source"),
    "not marked": (
        f"{HEAD}{CONFIG}def backy_source(config): ...",
        "does not implement the hook backy_source; its function of that name is not marked with @hookimpl",
    ),
    "other kind": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config): ...\n@hookimpl\ndef backy_verifier(config): ...",
        "implements the hook backy_verifier, which is not one of a source",
    ),
    "event": (
        f"{HEAD}{CONFIG}@hookimpl\ndef backy_source(config): ...\n@hookimpl\ndef backy_backup_finished(job): ...",
        "implements the hook backy_backup_finished, which is not one of a source",
    ),
}


@pytest.fixture(params=BREACHES)
def breach(request: pytest.FixtureRequest, distribution: Callable[..., str]) -> str:
    """A source `tape` of the distribution `acme`, broken in one of many ways; its cause."""
    code, cause = BREACHES[request.param]
    distribution("acme", {"backy.sources": ["tape"]}, code)
    return cause


def test_a_breach_is_refused_with_its_cause(breach: str) -> None:
    with pytest.raises(PluginError) as refused:
        load(Kind.SOURCE, "tape")

    line = str(refused.value)
    assert line.startswith(f"source 'tape' of acme 1.0 is broken: {breach}")
    assert "\n" not in line


def test_a_breach_is_shown_with_its_cause(breach: str, backy: Callable) -> None:
    shown = backy("plugins", "show", "tape").out

    assert shown.startswith("source 'tape' of acme 1.0: failed\n")
    assert f"  cause: {breach}" in shown


def test_a_breach_fails_the_jobs_that_use_it_and_no_others(breach: str, backy: Callable, tmp_path: Path, image: Path):
    backy("-b", tmp_path / "sound", "init", "file", image)
    backy("-b", tmp_path / "broken", "init", "file", image)
    config = tmp_path / "broken/config"
    config.write_text(config.read_text().replace("type: file", "type: tape"))

    failed = backy("-b", tmp_path / "broken", "backup", "daily")
    assert failed.code == 1
    assert failed.err.startswith(f"Error: source 'tape' of acme 1.0 is broken: {breach}")
    assert failed.err.count("\n") == 1
    assert backy("-b", tmp_path / "sound", "backup", "daily").code == 0


def test_two_distributions_with_one_name_are_both_named(
    distribution: Callable[..., str], backy: Callable, tmp_path: Path, image: Path
) -> None:
    distribution("acme", {"backy.sources": ["tape"]})
    distribution("zeta", {"backy.sources": ["tape"]}, version="2.1")
    cause = "claimed by acme 1.0 and zeta 2.1; uninstall all but one, or put the others into BACKY_DISABLED_PLUGINS"

    assert backy("-b", tmp_path / "vm", "init", "tape", "x").err == f"Error: source 'tape' is {cause}\n"
    lines = [line for line in json.loads(backy("plugins", "--json").out)["plugins"] if line["name"] == "tape"]
    assert [(line["distribution"], line["state"], line["cause"]) for line in lines] == [
        ("acme", "failed", cause),
        ("zeta", "failed", cause),
    ]
    assert backy("-b", tmp_path / "other", "init", "file", image).code == 0
    assert backy("-b", tmp_path / "other", "backup", "daily").code == 0


def test_switching_one_off_settles_a_conflict(
    distribution: Callable[..., str], backy: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution("acme", {"backy.sources": ["tape"]})
    distribution("zeta", {"backy.sources": ["tape"]}, "from backy_sources_file import *")
    assert backy("-b", tmp_path / "vm", "init", "tape", "x").code == 1
    monkeypatch.setenv("BACKY_DISABLED_PLUGINS", "acme")
    assert backy("-b", tmp_path / "vm", "init", "tape", "x").code == 0


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("def backy_backup_finished(job): ...", "implements no hook; are its functions marked with @hookimpl?"),
        (f"{HEAD}@hookimpl\ndef backy_source(config): ...", "implements the hook backy_source, which is not one of a"),
    ],
)
def test_an_event_plugin_implements_events_only(code: str, cause: str, distribution: Callable[..., str]) -> None:
    distribution("acme", {"backy.hooks": ["pager"]}, code)

    with pytest.raises(PluginError, match=re.escape(f"hook 'pager' of acme 1.0 is broken: {cause}")):
        load(Kind.HOOK, "pager")


def test_any_object_can_be_a_plugin_whose_functions_have_names_of_their_own(distribution: Callable[..., str]) -> None:
    code = """
    from backy.hookspecs import hookimpl
    class Tape:
        @hookimpl(specname="backy_source")
        def make(self, job): return job
        @hookimpl(specname="backy_source_config")
        def read(self, argument): return {"tape": argument}
    tape = Tape()
    """
    distribution("acme", {"backy.sources": ["tape:tape"]}, dedent(code))

    hook = load(Kind.SOURCE, "tape").hook
    assert hook.backy_source(config={}, job="vm") == "vm"
    assert hook.backy_source_config(argument="7") == {"tape": "7"}


@pytest.mark.parametrize("attribute", ["nothing", "none", "trap"])
def test_an_entry_point_that_names_no_plugin_is_refused(attribute: str, distribution: Callable[..., str]) -> None:
    code = """
    none = None
    class Trap:
        def __dir__(self): raise OSError("trapped")
    trap = Trap()
    """
    distribution("acme", {"backy.sources": [f"tape:{attribute}"]}, code)

    with pytest.raises(PluginError, match=r"source 'tape' of acme 1\.0 is broken: "):
        load(Kind.SOURCE, "tape")
