"""Makes the skeleton of a plugin: a small package whose tests pass, for its author to change."""

from __future__ import annotations

import re
from pathlib import Path

from backy.errors import BackyError, ConfigError
from backy.plugins.discovery import Kind, advertised

_FILES = Path(__file__).parent / "source"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def begin_source(name: str, folder: Path) -> Path:
    """Write a package for a source `name` to a new folder in `folder`, and return the new folder.

    Raises:
        ConfigError: no source can have this name.
        BackyError: there is such a folder, or such a source, already.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"a source can not be called '{name}': a name is lower-case letters, digits and single dashes"
        )
    if taken := advertised(Kind.SOURCE).get(name):
        raise BackyError(f"there is a source '{name}' already, in {taken[0].origin}: choose another name")
    # The name becomes part of a distribution's, a module's and a class's: `_NAME` allows what all three can hold.
    package = f"backy_sources_{name.replace('-', '_')}"
    words = {
        "DISTRIBUTION": f"backy-sources-{name}",
        "PACKAGE": package,
        "CLASS": name.title().replace("-", ""),
        "NAME": name,
    }
    target = folder / package
    if target.exists():
        raise BackyError(f"{target} is there already and left as it is")
    # Byte code is left over where the skeleton's own tests ran.
    for source in sorted(path for path in _FILES.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        path = target / _filled_in(str(source.relative_to(_FILES)), words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled_in(source.read_text(), words))
    return target


def _filled_in(text: str, words: dict[str, str]) -> str:
    """Return `text` with each placeholder replaced by its word."""
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
