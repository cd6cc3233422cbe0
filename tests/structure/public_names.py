"""Print every public name of backy with its signature: what lies directly in `backy/`, and the exceptions.

    python tests/structure/public_names.py > tests/structure/public_names.txt

Do that when you mean to change what others may use, and commit the difference.
"""

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import backy

EXCEPTIONS = {"backy.cli.progress": ["steps"], "backy.cli.options": ["tags_of"]}
"""Public names in private rooms."""


def public_modules() -> list[str]:
    """Return the names of the modules that lie directly in `backy/`."""
    folder = Path(backy.__path__[0])
    return [f"backy.{path.stem}" for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]


def lines() -> Iterator[str]:
    """Yield a line for each name, method and field."""
    for name in public_modules():
        module = importlib.import_module(name)
        for found in public_names(module):
            yield from described(f"{name}.{found}", getattr(module, found))
    for name, names in EXCEPTIONS.items():
        module = importlib.import_module(name)
        for found in names:
            yield from described(f"{name}.{found}", getattr(module, found))


def public_names(module: ModuleType) -> list[str]:
    """Return what a module offers: what it defines itself, imports `as` what it is called, or what others define."""
    own = r"^{0}\b.*=|^    {0} as {0},$"
    text = inspect.getsource(module)
    others = map(importlib.import_module, re.findall(r"^from (\S+) import \*", text, re.MULTILINE))
    return sorted(
        {found for other in others for found in public_names(other)}
        | {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and name not in {"annotations", "log"}
            and not inspect.ismodule(value)
            and (
                getattr(value, "__module__", None) == module.__name__ or re.search(own.format(name), text, re.MULTILINE)
            )
        }
    )


def described(path: str, value: object) -> Iterator[str]:
    """Yield the lines of one name."""
    if inspect.isclass(value) and value.__module__.startswith("backy"):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"class {path}({bases})"
        yield from members(path, value)
    elif inspect.isfunction(value):
        # where a function that is a default lies in memory is no part of the signature
        yield re.sub(r" at 0x[0-9a-f]+", "", f"{path}{inspect.signature(value)}")
    else:
        yield path


def members(path: str, value: type) -> Iterator[str]:
    """Yield the fields, properties and methods that a class defines itself."""
    for name, kind in sorted(vars(value).get("__annotations__", {}).items()):
        if not name.startswith("_"):
            yield f"{path}.{name}: {kind}"
    for name, member in sorted(vars(value).items()):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            returned = inspect.signature(member.fget).return_annotation if member.fget else ""
            yield f"{path}.{name} -> {returned}"
        elif isinstance(member, staticmethod | classmethod):
            yield f"{path}.{name}{inspect.signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"{path}.{name}{inspect.signature(member)}"
        elif isinstance(member, enum.Enum):
            yield f"{path}.{name}"


if __name__ == "__main__":
    print("\n".join(lines()))  # noqa: T201  # it is what it is for
