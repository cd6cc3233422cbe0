"""What others may use is written down, and our own distributions use nothing else."""

import ast
import difflib
import re
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def load(path: Path):
    spec = spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


names = load(HERE / "public_names.py")
CLIENTS = [
    *ROOT.glob("backy_*/src/**/*.py"),
    *ROOT.glob("backy/testing/skeleton/*/**/*.py"),
    *ROOT.glob("docs/examples/**/*.py"),
    *ROOT.glob("docs/how-to/write-a-*.md"),
    *ROOT.glob("tests/packaging/third_party_source/**/*.py"),
    *ROOT.glob("tests/packaging/contract_1/**/*.py"),
]


def code(path: Path) -> str:
    """Return a module, or what a page shows of modules."""
    text = path.read_text()
    return text if path.suffix == ".py" else "\n".join(re.findall(r"(?ms)^```python\n(.*?)^```$", text))


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports from backy, as `module` or `module.name`."""
    for node in ast.walk(ast.parse(code(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "backy")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "backy":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_public(name: str) -> bool:
    exceptions = {f"{module}.{found}" for module, listed in names.EXCEPTIONS.items() for found in listed}
    modules = names.public_modules()
    return name in {*exceptions, *modules} or name.rpartition(".")[0] in modules or name.startswith("backy.testing.")


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_private_is_imported(path):
    assert [name for name in imported(path) if not is_public(name)] == []


def test_there_are_clients_of_every_kind():
    folders = {path.relative_to(ROOT).parts[0] for path in CLIENTS}
    assert folders >= {
        "backy",
        "backy_sources_file",
        "backy_sources_ceph",
        "backy_sources_lvm",
        "backy_sources_qemu",
        "backy_sources_flyingcircus",
        "backy_storages_chunked",
        "backy_storages_cow",
        "backy_files",
        "backy_drills",
        "backy_upgrade",
        "docs",
        "tests",
    }


def test_public_names_change_by_decision_only():
    written = (HERE / "public_names.txt").read_text().splitlines()
    difference = list(difflib.unified_diff(written, list(names.lines()), "written down", "as it is", lineterm=""))
    command = "python tests/structure/public_names.py > tests/structure/public_names.txt"
    assert not difference, "\n".join([*difference, f"if that is meant: {command}"])
