"""How easily one finds one's way in the code: folders, arrows between rooms, lengths, comments, lines of the core.

    python -m benchmarks.structure             # the working tree
    python -m benchmarks.structure v3.0 .      # a revision of git beside the working tree

Prints one row a figure and one column a tree. `tests/structure` holds the bounds.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

# Rooms by floor, the lowest first: what stands on one line may use the lines above it, and nothing on its own line.
# A room is a folder of `backy/`, a folder in `scheduler/` or `cli/`, or a file directly in `backy/`.
FLOORS = """
errors text terminal
contract
api hookspecs durable
extents config direct pages
debian marker resting system standalone
image
plugins comparing
verifiers moments
repository
integrity retention
restore
backup
answers conversion making groups scrubbing
exchange mount
copies drills
importing reading
scheduler/process scheduler/configuration
scheduler/monitoring
scheduler/jobs
scheduler/console
scheduler
testing
cli
cli/commands
"""
FLOOR_OF = {room: floor for floor, line in enumerate(FLOORS.split("\n")) for room in line.split()}

LATE_NAMES = {("reading", "mount")}
"""Arrows that run up on purpose: a public name that opens what lies above, imported when it is called."""

CORE_ROOMS = {"text", "system", "image", "plugins", "verifiers", "moments", "repository", "integrity"}
# `standalone` is none: what it has are texts that are copied into repositories, and not what runs as backy.
CORE_ROOMS |= {"retention", "restore", "backup", "exchange", "contract"}

# Where lines of the core rooms once were: 'verify' became verifiers, and 'storage' had what are distributions now.
FORMER_CORE = {"verify", "storage"}
FORMER_OTHERS = {"nbd.py"}

TEMPLATES = re.compile(r"testing/skeleton/\w+/")
"""What `backy plugins new` fills in: names of modules in it are no names yet."""


@dataclass(frozen=True)
class Module:
    """A Python file of the tree."""

    path: str
    """Below the tree."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax of the file."""
        return ast.parse(self.text)

    @property
    def name(self) -> str:
        """The name that it is imported by."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def code(self) -> set[int]:
        """Numbers of the lines that are neither blank nor a comment nor part of a docstring."""
        beside = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
        lines = {
            number
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline)
            if token.type not in beside
            for number in range(token.start[0], token.end[0] + 1)
        }
        return lines - set(_docstring_lines(self.tree))

    @cached_property
    def comments(self) -> int:
        """How many lines have a comment."""
        return sum(
            token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(self.text).readline)
        )

    @property
    def functions(self) -> Iterator[int]:
        """Yield the number of code lines of every function, its signature included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield len(self.code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of all texts that stand alone: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


class Structure:
    """The structure of all that ships of one tree."""

    def __init__(self, tree: Path) -> None:
        """Read the package `backy` and those of the distributions beside it."""
        files = [*tree.glob("backy/**/*.py"), *tree.glob("backy_*/src/**/*.py")]
        names = sorted(str(file.relative_to(tree)) for file in files)
        self.modules = [Module(name, (tree / name).read_text()) for name in names if not TEMPLATES.search(name)]
        self._by_name = {module.name: module for module in self.modules if module.path.startswith("backy/")}

    @cached_property
    def folders(self) -> Counter[str]:
        """How many Python files each folder has."""
        return Counter(module.path.rpartition("/")[0] for module in self.modules)

    @cached_property
    def imports(self) -> Mapping[str, set[str]]:
        """The modules of backy that each one imports, at its top or in a function."""
        return {name: set(self._imported(module)) - {name} for name, module in self._by_name.items()}

    def _imported(self, module: Module) -> Iterator[str]:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names if alias.name in self._by_name)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if found := name if name in self._by_name else node.module if node.module in self._by_name else "":
                        yield found

    @cached_property
    def chain(self) -> list[str]:
        """The longest chain of modules in which each one imports the next; empty if there is a circle."""

        @cache
        def below(name: str) -> list[str]:
            return [name, *max(map(below, self.imports[name]), key=len, default=[])]

        return [] if self.circle else max(map(below, self.imports), key=len)

    @cached_property
    def circle(self) -> list[str]:
        """Modules that import each other, in a circle or leading to one; empty if there are none."""
        left = {name: set(found) for name, found in self.imports.items()}
        while free := [name for name, found in left.items() if not found & left.keys()]:
            for name in free:
                del left[name]
        return sorted(left)

    @cached_property
    def arrows(self) -> set[tuple[str, str]]:
        """Pairs of rooms, the first of which imports from the second."""
        pairs = {(room(name), room(other)) for name, found in self.imports.items() for other in found}
        return {(above, below) for above, below in pairs if above != below}

    @property
    def wrong_arrows(self) -> list[tuple[str, str]]:
        """Arrows that do not run down, or that concern a room that `FLOORS` does not have."""
        allowed = {(above, below) for above in FLOOR_OF for below in FLOOR_OF if FLOOR_OF[above] > FLOOR_OF[below]}
        return sorted(self.arrows - allowed - LATE_NAMES)

    @property
    def long_modules(self) -> list[str]:
        """Modules of more than 400 lines."""
        return [module.path for module in self.modules if module.text.count("\n") > 400]  # noqa: PLR2004  # the rule

    @property
    def function_lengths(self) -> list[int]:
        """Code lines of all functions, the shortest first."""
        return sorted(length for module in self.modules for length in module.functions)

    @property
    def code_lines(self) -> int:
        """Lines of code of all that ships, without blanks, comments and docstrings."""
        return sum(len(module.code) for module in self.modules)

    @property
    def core_lines(self) -> int:
        """Likewise, of the core rooms."""
        return sum(len(module.code) for module in self.modules if is_core(module.path))

    @property
    def comment_share(self) -> float:
        """Lines with comments for each line of code."""
        return sum(module.comments for module in self.modules) / self.code_lines


def room(module: str) -> str:
    """Return the room that a module of backy is in; folders count, not files, but for those directly in `backy/`."""
    parts = module.split(".")[1:]
    nested = "/".join(parts[:2])
    return nested if nested in FLOOR_OF else parts[0] if parts else ""


def is_core(path: str) -> bool:
    """Tell whether a file belongs to the core rooms, or would have before there were rooms."""
    package, _, below = path.partition("/")
    first, _, rest = below.partition("/")
    if package != "backy":
        return False
    return (not rest and first not in FORMER_OTHERS) or first in CORE_ROOMS or bool({below, first} & FORMER_CORE)


def figures(structure: Structure) -> dict[str, str]:
    """Return what is printed of one tree."""
    fullest = structure.folders
    lengths = structure.function_lengths
    return {
        "Python files": str(len(structure.modules)),
        "fullest folder (files)": f"{max(fullest.values())} {max(fullest, key=lambda folder: fullest[folder])}",
        "rooms": str(len({room(name) for name in structure.imports})),
        "arrows between rooms": str(len(structure.arrows)),
        "arrows not down": str(len(structure.wrong_arrows)),
        "modules in circles": str(len(structure.circle)),
        "longest chain of imports": str(len(structure.chain)),
        "modules above 400 lines": str(len(structure.long_modules)),
        "functions: median, p95, longest": f"{statistics.median(lengths):.0f}, {_percentile(lengths)}, {lengths[-1]}",
        "comment lines / code lines": f"{structure.comment_share:.1%}",
        "lines of the core rooms": str(structure.core_lines),
        "lines of all that ships": str(structure.code_lines),
    }


def _percentile(lengths: list[int]) -> int:
    """Return the length that 95 of 100 functions do not exceed."""
    return lengths[len(lengths) * 95 // 100]


def _checked_out(tree: str, stack: ExitStack) -> Path:
    """Return a folder as it is, or a temporary one with the files of a revision of git."""
    if Path(tree).is_dir():
        return Path(tree)
    archive = subprocess.run(["git", "archive", tree], check=True, capture_output=True).stdout
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="backy-structure-"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder)  # noqa: S202  # this repository's own files
    return Path(folder)


def main(trees: list[str]) -> None:
    """Print the figures of all trees side by side."""
    with ExitStack() as stack:
        columns = [figures(Structure(_checked_out(tree, stack))) for tree in trees]
    for name in columns[0]:
        print(f"{name:33}", *(f"{column[name]:24}" for column in columns))  # noqa: T201  # it is what it is for


if __name__ == "__main__":
    main(sys.argv[1:] or ["."])
