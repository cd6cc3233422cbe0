from __future__ import annotations

from pathlib import Path

import pytest

from backy.errors import ConfigError
from backy.scheduler.settings import load_settings


@pytest.mark.parametrize(
    ("content", "base", "status"),
    [
        ("", "/srv/backy", "/srv/backy/status"),
        ("global: {}", "/srv/backy", "/srv/backy/status"),
        ("global: {base-dir: /x}", "/x", "/x/status"),
        ("global:\n  base-dir: '/x y'\n  status-file: /run/s\n", "/x y", "/run/s"),
        ("config:\n  base-dir: /x\njobs: {}\n", "/x", "/x/status"),
        ("jobs:\n  a: {base-dir: /no, l: [1, {base-dir: /no}]}\nglobal:\n  base-dir: /x\n", "/x", "/x/status"),
        ("jobs: &j [*k]\nglobal:\n  storage: {type: x, base-dir: /no}\n  base-dir: /x\n", "/x", "/x/status"),
        ("global:\n  list: [base-dir, /no]\n  base-dir: /x\njobs: [this, is: not {YAML", "/x", "/x/status"),
        ("- global\n- base-dir\n", "/srv/backy", "/srv/backy/status"),
        ("global\n", "/srv/backy", "/srv/backy/status"),
    ],
)
def test_two_keys_are_found_wherever_they_are(tmp_path: Path, content: str, base: str, status: str) -> None:
    (tmp_path / "backy.conf").write_text(content)
    found = load_settings(tmp_path / "backy.conf")
    assert (found.base_dir, found.status_file) == (Path(base), Path(status))


def test_what_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"backy.conf can not be read: No such file"):
        load_settings(tmp_path / "backy.conf")
    (tmp_path / "backy.conf").write_text("jobs: [this, is: not {YAML")
    with pytest.raises(ConfigError, match=r"backy.conf is not YAML: .*line 1"):
        load_settings(tmp_path / "backy.conf")
