"""Files that anybody may have put into a repository are opened in one way: `backy.durable` never waits for one."""

import ast

from benchmarks.structure import Structure
from tests.structure.test_rooms import ROOT

OTHERS = {
    # files of the kernel
    "backy/system/clocks.py",
    "backy/mount/active.py",
    # files of backy itself, or that it has just made; and plugins, whose owner is checked
    "backy/standalone/explain.py",
    "backy/mount/serve.py",
    "backy/plugins/discovery.py",
    # a program that the administrator names
    "backy/scheduler/configuration/checking.py",
    # run without backy
    "backy/standalone/audit.py",
    "backy/standalone/restore.py",
}


def _reads(tree: ast.Module) -> list[str]:
    """Return the calls by which a module would read a file in another way."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        text = ast.dump(node)
        read_only = name == "open" and any(f"Constant(value='{mode}')" in text for mode in ("r", "rb"))
        read_only |= name == "open" and "O_RDONLY" in text and "O_DIRECTORY" not in text
        if name in {"read_bytes", "read_text"} or read_only:
            found.append(f"line {node.lineno}: {name}")
    return found


def test_files_are_opened_for_reading_in_one_way() -> None:
    found = {module.path: _reads(module.tree) for module in Structure(ROOT).modules if module.path.startswith("backy/")}
    found = {path: reads for path, reads in found.items() if reads and not path.startswith("backy/testing/")}
    assert {path: reads for path, reads in found.items() if path not in OTHERS} == {}
    assert found.keys() >= OTHERS, "one is excepted in vain"
