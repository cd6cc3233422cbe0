"""The page about /etc/backy.conf and the example are what the scheduler takes."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from backy.config import convert
from backy.repository.config import ScheduledTag
from backy.scheduler.configuration.configuration import Global, JobKeys, load
from backy.scheduler.configuration.location import Limits, Notify

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference/backy-conf.md"
EXAMPLE = DOCS / "examples/backy.conf"


def table(heading: str) -> dict[str, str]:
    """Return the keys that a section of the page has, and the last cells of their rows."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([a-z-]+)` \|.*\| (.+) \|$", section, re.MULTILINE)
    assert found, f"{PAGE} has no table below '## {heading}'"
    return dict(found)


@pytest.mark.parametrize(
    ("heading", "section"),
    [("global", Global), ("schedules", ScheduledTag), ("jobs", JobKeys), ("limits", Limits), ("notify", Notify)],
)
def test_every_key_is_explained(heading: str, section: type[msgspec.Struct]) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(section)}
    documented = table(heading)

    assert set(documented) == set(fields)
    assert {name for name, default in documented.items() if default == "required"} == {
        name for name, field in fields.items() if field.required
    }


@pytest.mark.parametrize(("heading", "section"), [("global", Global()), ("jobs", JobKeys(schedule=""))])
def test_the_defaults_are_those_that_are_told(heading: str, section: msgspec.Struct) -> None:
    for field in msgspec.structs.fields(section):
        told = re.fullmatch("`([^`]+)`", table(heading)[field.encode_name])
        default = None if told is None else convert(yaml.safe_load(told[1]), field.type)
        assert default == (getattr(section, field.name) or None if told is None else getattr(section, field.name))


def written(text: str, section: str, key: str) -> bool:
    """Whether an example has a key in a section, be it as a comment."""
    part = re.split(r"^(\w+):", text, flags=re.MULTILINE)
    return re.search(rf"^ *(# )?{key}:", part[part.index(section) + 1], re.MULTILINE) is not None


def test_the_example_is_sound_and_has_every_key() -> None:
    configuration = load(EXAMPLE)
    text = EXAMPLE.read_text()

    assert set(configuration.jobs) == {
        "web1",
        "database1",
        "shop",
        "old-mail",
        "web2",
        "database1/scrub",
        "database1/drill",
    }
    assert configuration.settings == Global()
    assert [key for key in table("global") if not written(text, "global", key)] == []
    assert [key for key in table("jobs") if not written(text, "jobs", key)] == []


def test_what_the_example_has_as_comments_is_sound_too(tmp_path: Path) -> None:
    path = tmp_path / "backy.conf"
    path.write_text(re.sub(r"^  # ", "  ", EXAMPLE.read_text(), flags=re.MULTILINE))
    settings = load(path).settings

    assert [field for field in settings.__struct_fields__ if getattr(settings, field) is None] == []


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
def test_what_the_page_shows_is_sound(block: str, tmp_path: Path) -> None:
    (tmp_path / "backy.conf").write_text(block)
    assert load(tmp_path / "backy.conf").jobs
