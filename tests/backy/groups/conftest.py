"""A machine with two disks, whose images are files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backy.groups.group import Group, require
from backy.system.safeyaml import dump_yaml
from backy.testing.images import write_image


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Group]:
    """Write the `config` of a group with disks of these names, as `machine("root", "data", **keys)`; open it."""

    def make(*names: str, **keys: Any) -> Group:
        for number, name in enumerate(names):
            if not (tmp_path / f"{name}.img").exists():
                write_image(tmp_path / f"{name}.img", number + 1, None, 7, tail=1000 + number)
        disks = {name: {"source": {"type": "file", "filename": str(tmp_path / f"{name}.img")}} for name in names}
        (tmp_path / "web1").mkdir(exist_ok=True)
        moment = {"type": "program", "before": "/bin/true", "after": "/bin/true"}
        content = {"format": 3, "moment": moment, "disks": disks, **keys}
        (tmp_path / "web1/config").write_bytes(dump_yaml(content))
        return require(tmp_path / "web1")

    return make
