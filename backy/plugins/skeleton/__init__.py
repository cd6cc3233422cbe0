"""The beginnings of a plugin: a small package whose tests pass, to be changed into what somebody needs."""

from __future__ import annotations

import re
from pathlib import Path

from backy.errors import BackyError, ConfigError
from backy.plugins.discovery import Kind, advertised

_FILES = Path(__file__).parent / "source"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class SkeletonError(BackyError):
    """A package can not be begun where it was asked for."""


def begin_source(name: str, folder: Path) -> Path:
    """Write a package for a source `name` into a new folder below `folder`, and return that.

    Raises:
        ConfigError: no source can have this name.
        SkeletonError: there is such a folder, or such a source, already.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a source can not be called '{name}': a name is lower-case letters, digits and single dashes"
        )
    if taken := advertised(Kind.SOURCE).get(name):
        raise SkeletonError(f"there is a source '{name}' already, in {taken[0].origin}: choose another name")
    package = f"backy_sources_{name.replace('-', '_')}"
    words = {
        "DISTRIBUTION": f"backy-sources-{name}",
        "PACKAGE": package,
        "CLASS": name.title().replace("-", ""),
        "NAME": name,
    }
    target = folder / package
    if target.exists():
        raise SkeletonError(f"{target} is there already and left as it is")
    for source in sorted(path for path in _FILES.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        path = target / _filled_in(str(source.relative_to(_FILES)), words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled_in(source.read_text(), words))
    return target


def _filled_in(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
