"""Print every public name of backy with its signature: what lies directly in `backy/`, and the exceptions.

    python tests/structure/public_names.py > tests/structure/public_names.txt

Do that when you mean to change what others may use, and commit the difference.
"""

import ast
import enum
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

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
        yield re.sub(r" at 0x[0-9a-f]+", "", f"{path}{signature(value)}")
    else:
        yield path


def members(path: str, value: type) -> Iterator[str]:
    """Yield the fields, properties and methods that a class defines itself."""
    fields = {one.target.id: one for one in syntax(value).body if isinstance(one, ast.AnnAssign)}
    for name, field in sorted(fields.items()):
        if not name.startswith("_"):
            yield f"{path}.{name}: {written(field.annotation)}"
    for name, member in sorted(vars(value).items()):
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            returned = signature(member.fget).return_annotation if member.fget else ""
            yield f"{path}.{name} -> {returned}"
        elif isinstance(member, staticmethod | classmethod):
            yield f"{path}.{name}{signature(member.__func__)}"
        elif inspect.isfunction(member):
            yield f"{path}.{name}{signature(member)}"
        elif isinstance(member, enum.Enum):
            yield f"{path}.{name}"


def signature(function: Callable[..., object]) -> inspect.Signature:
    """Return the signature of a function with its annotations as they are written, aliases by their names."""
    node, found = syntax(function), inspect.signature(function)
    notes = {one.arg: written(one.annotation) for one in ast.walk(node.args) if getattr(one, "annotation", None)}
    known = [one.replace(annotation=notes.get(one.name, one.annotation)) for one in found.parameters.values()]
    return found.replace(parameters=known, return_annotation=written(node.returns))


def syntax(value: object) -> Any:
    """Return the syntax of a class or a function."""
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def written(annotation: ast.expr) -> str:
    """Return an annotation as it is written, but for the quotes of one that stands before what it names."""
    return annotation.value if isinstance(annotation, ast.Constant) and annotation.value else ast.unparse(annotation)


if __name__ == "__main__":
    print("\n".join(lines()))  # noqa: T201  # it is what it is for
