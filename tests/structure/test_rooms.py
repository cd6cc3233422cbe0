"""One finds one's way: rooms with few files, arrows that run down, short modules and functions, comments."""

import ast
from pathlib import Path

import pytest

from benchmarks.structure import FLOOR_OF, LATE_NAMES, Structure, figures, is_core, room

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def structure() -> Structure:
    return Structure(ROOT)


def test_a_folder_has_at_most_15_files(structure):
    crowded = {folder: count for folder, count in structure.folders.items() if count > 15}
    assert crowded == {}


def test_arrows_between_rooms_run_down(structure):
    assert structure.wrong_arrows == []


def test_no_arrow_is_excepted_in_vain(structure):
    assert structure.arrows >= LATE_NAMES


def test_no_room_is_listed_that_is_not_there(structure):
    assert FLOOR_OF.keys() == {room(name) for name in structure.imports} - {""}


def test_no_core_room_uses_what_serves_people(structure):
    served = {"mount", "answers", "conversion", "scheduler", "cli", "terminal", "testing"}
    core = {room(module.name) for module in structure.modules if is_core(module.path)}
    reached = {(above, below) for above, below in structure.arrows if above in core and below.split("/")[0] in served}
    assert reached <= LATE_NAMES


def test_modules_import_each_other_in_no_circle(structure):
    assert structure.circle == []


def test_the_longest_chain_of_imports_has_12_modules(structure):
    assert len(structure.chain) <= 12, structure.chain


def test_modules_have_at_most_400_lines(structure):
    assert structure.long_modules == []


def test_functions_are_short(structure):
    lengths = structure.function_lengths
    assert lengths[len(lengths) * 95 // 100] <= 20


def test_the_core_is_small_and_so_is_all_that_ships(structure):
    assert structure.core_lines <= 6_000
    assert structure.code_lines <= 20_000


def test_there_is_a_comment_for_25_lines_of_code(structure):
    assert structure.comment_share >= 0.04


def test_a_room_says_what_it_is_and_imports_nothing(structure):
    """What a room's `__init__.py` imports, `backy --help` pays for."""
    rooms = {f"backy/{name}/__init__.py" for name in FLOOR_OF} - {"backy/scheduler/__init__.py"}  # one constant
    for module in structure.modules:
        if module.path in rooms:
            assert (bool(ast.get_docstring(module.tree)), module.code) == (True, set()), module.path


def test_figures_of_a_small_tree(tmp_path):
    """The measures are right where one can count by hand."""
    (tmp_path / "backy/image").mkdir(parents=True)
    (tmp_path / "backy/repository").mkdir()
    (tmp_path / "backy/errors.py").write_text('"""Docstring."""\n\nX = 1  # why\n')
    (tmp_path / "backy/image/a.py").write_text(
        "from backy.repository import b\n\n\ndef f():\n    '''Doc.'''\n    # why\n    return b\n"
    )
    (tmp_path / "backy/repository/b.py").write_text("from backy.errors import X\n")
    found = Structure(tmp_path)
    assert found.chain == ["backy.image.a", "backy.repository.b", "backy.errors"]
    assert found.wrong_arrows == [("image", "repository")]
    assert list(found.function_lengths) == [2]
    assert (found.core_lines, found.code_lines, found.comment_share) == (5, 5, 2 / 5)
    assert figures(found)["fullest folder (files)"] == "1 backy"


def test_a_circle_is_found(tmp_path):
    (tmp_path / "backy").mkdir()
    (tmp_path / "backy/a.py").write_text("def f():\n    import backy.b\n")
    (tmp_path / "backy/b.py").write_text("import backy.a\n")
    assert Structure(tmp_path).circle == ["backy.a", "backy.b"]
