from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest

from backy import hookspecs
from backy.api import Job, Storage, Verifier
from backy.plugins.discovery import Kind
from backy.plugins.loading import call

ROOT = Path(__file__).parents[2]
HOOKS: dict[str, FunctionType] = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("backy_")}


def documentation(name: str) -> str:
    """Return the section of `name` in the reference, its heading included."""
    text = (ROOT / "docs/reference/hooks.md").read_text()
    sections = {section.partition("(")[0]: section for section in re.split(r"^###? ", text, flags=re.MULTILINE)}
    return sections.get(name, "")


def said(kind: Kind) -> dict[str, set[str]]:
    """Return what is said of the factories of a kind."""
    return {"required": set(kind.required), "optional": set(kind.factories) - set(kind.required)}


def hooks_with_tests() -> set[str]:
    """Return the hooks that some test function is named for, the longest name that fits counting."""
    # Of those, another test sends each to a plugin.
    found = {name for name, hook in HOOKS.items() if "Called by nothing yet" in (inspect.getdoc(hook) or "")}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for tested in re.findall(r"^def test_hook_(\w+)\(", path.read_text(), flags=re.MULTILINE):
            fitting = [name for name in HOOKS if tested == name or tested.startswith(f"{name}_")]
            found.update(sorted(fitting, key=len)[-1:])
    return found


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_who_calls_it_and_how_it_fails(name: str) -> None:
    text = " ".join((inspect.getdoc(HOOKS[name]) or "").split())

    assert "Called by " in text
    assert any(words in text for words in ("Raise ConfigError", "may veto", "An exception is logged"))


def test_exactly_two_hooks_may_veto() -> None:
    vetoes = [name for name, hook in HOOKS.items() if "may veto" in (inspect.getdoc(hook) or "")]

    assert vetoes == ["backy_backup_starting", "backy_expiring"]


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_and_the_reference_say_whether_it_is_required(name: str) -> None:
    word = next((word for kind in Kind for word, hooks in said(kind).items() if name in hooks), None)
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs/reference/hooks.md").read_text(), flags=re.MULTILINE)
    row = next((row for row in rows if f"`{name}`" in row), "")

    assert word is None or f"{word.capitalize()} in `backy." in (inspect.getdoc(HOOKS[name]) or "")
    assert word is None or word in row.rpartition(f"`{name}`")[2]


@pytest.mark.parametrize("name", HOOKS)
def test_the_reference_documents_every_hook_with_its_arguments(name: str) -> None:
    section = documentation(name)
    arguments = list(inspect.signature(HOOKS[name]).parameters)

    assert section.partition("\n")[0] == f"{name}({', '.join(arguments)})"
    assert re.findall(r"^\* `(\w+)` \(", section, flags=re.MULTILINE) == arguments
    for part in ("Called by", "Result: ", "Errors: ", "```python\n@hookimpl\ndef " + name):
        assert part in section


def test_the_reference_documents_no_hook_that_does_not_exist() -> None:
    text = (ROOT / "docs/reference/hooks.md").read_text()

    assert re.findall(r"^### (\w+)", text, flags=re.MULTILINE) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test_named_for_it(name: str) -> None:
    assert name in hooks_with_tests(), f"write a test whose name begins with test_hook_{name}"


@pytest.mark.parametrize("name", HOOKS)
def test_a_factory_answers_once_and_an_event_goes_to_all(name: str) -> None:
    factories = {hook for kind in Kind for hook in kind.factories}

    assert bool(getattr(HOOKS[name], "backy_spec")["firstresult"]) == (name in factories)  # noqa: B009  # set by pluggy


SOURCE = """
from backy.hookspecs import hookimpl
class Source:
    verifier = "none"
    def snapshot(self, revision_id, parent): ...  # nobody asks for one
@hookimpl
def backy_source(config, job):
    made = Source()
    made.given = config, job
    return made
@hookimpl
def backy_source_config(argument): return {"drive": int(argument)}
"""


def test_hook_backy_source_is_given_its_section_and_the_job(distribution: Callable[..., str], tmp_path: Path) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, SOURCE)
    job = Job("vm", "vm-id", tmp_path)

    made = call(Kind.SOURCE, "tape", "backy_source", config={"type": "tape", "drive": 7}, job=job)

    assert made.given == ({"type": "tape", "drive": 7}, job)


def test_hook_backy_source_config_turns_the_words_of_init_into_a_section(
    distribution: Callable[..., str], backy: Callable, tmp_path: Path
) -> None:
    distribution("acme", {"backy.sources": ["tape"]}, SOURCE)

    assert backy("-b", tmp_path / "vm", "init", "tape", "7").code == 0
    assert "source:\n  type: tape\n  drive: 7\n" in (tmp_path / "vm/config").read_text()


def test_hook_backy_storage_touches_no_file(tmp_path: Path) -> None:
    job = Job("vm", "vm-id", tmp_path / "vm")

    storage: Storage = call(Kind.STORAGE, "chunked", "backy_storage", config={"type": "chunked"}, job=job)

    assert storage.raw is False
    assert not job.directory.exists()


def test_hook_backy_storage_config_turns_what_follows_the_colon_into_a_section(
    distribution: Callable[..., str],
) -> None:
    code = """
        from backy.hookspecs import hookimpl
        @hookimpl
        def backy_storage(config): return None
        @hookimpl
        def backy_storage_config(argument): return {"address": argument}
    """
    distribution("acme", {"backy.storages": ["web"]}, code)

    assert call(Kind.STORAGE, "web", "backy_storage_config", argument="x:y") == {"address": "x:y"}


def test_hook_backy_verifier_makes_what_can_verify(tmp_path: Path) -> None:
    job = Job("vm", "vm-id", tmp_path)

    verifier: Verifier = call(Kind.VERIFIER, "full", "backy_verifier", config={"type": "full"}, job=job)

    assert callable(verifier.verify)
