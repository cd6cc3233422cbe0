"""Makes the skeleton of a plugin: a small package whose tests pass, for its author to change."""

import re
from collections.abc import Iterator
from pathlib import Path

from backy.errors import BackyError, ConfigError
from backy.plugins.discovery import Kind, advertised

_TEMPLATES = Path(__file__).parent
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_DEPENDENCIES = ("click>=8.1.7", "msgspec>=0.19")
"""What a template may import beside backy itself."""


def begin(kind: Kind, name: str, folder: Path) -> Path:
    """Write a package for a plugin `name` to a new folder in `folder`, and return the new folder.

    Raises:
        ConfigError: no plugin can have this name.
        BackyError: there is such a folder, or such a plugin, already.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"no {kind.word} is called '{name}': a name is lower-case letters, digits and single dashes")
    if taken := advertised(kind).get(name):
        raise BackyError(f"there is a {kind.word} '{name}' already, in {taken[0].origin}: choose another name")
    words = _words(kind, name)
    target = folder / words["PACKAGE"]
    if target.exists():
        raise BackyError(f"{target} is there already and left as it is")
    for relative, text in _templates(kind):
        path = target / _filled_in(relative, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled_in(text, words))
    return target


def _words(kind: Kind, name: str) -> dict[str, str]:
    """Return what takes the place of each word in capitals, in the order in which they are replaced."""
    # The name becomes part of a distribution's, a module's and a class's: `_NAME` allows what all three can hold.
    package = f"{kind.group}_{name}".replace(".", "_").replace("-", "_")
    code = "".join(text for _, text in _templates(kind))
    imported = [one for one in _DEPENDENCIES if f"\nimport {one.partition('>')[0]}\n" in code]
    return {
        # first, as it has words in capitals itself
        "USAGE": (_TEMPLATES / kind.word / "usage.md").read_text().strip(),
        "DEPENDENCIES": ", ".join(f'"{one}"' for one in ("backy>=3,<4", *imported)),
        "DISTRIBUTION": f"{kind.group}-{name}".replace(".", "-"),
        "ENTRY": f"{package}:command" if kind is Kind.COMMAND else package,
        "GROUP": kind.group,
        "PACKAGE": package,
        "CLASS": name.title().replace("-", ""),
        "KIND": kind.word,
        "NAME": name,
    }


def _templates(kind: Kind) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file: first what all kinds have, then what this one has."""
    for folder in (_TEMPLATES / "common", _TEMPLATES / kind.word):
        for path in sorted(folder.rglob("*")):
            # an editor or a test may have compiled a template; `usage.md` is a part of the README
            if path.is_file() and path.suffix != ".pyc" and path.name != "usage.md":
                yield str(path.relative_to(folder)), path.read_text()


def _filled_in(text: str, words: dict[str, str]) -> str:
    """Return `text` with each placeholder replaced by its word."""
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
