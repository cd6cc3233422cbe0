"""The writers rest as long as the moment lasts, and no longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from PACKAGE import backy_moment


def test_the_flag_is_there_meanwhile(tmp_path: Path) -> None:
    """The file is gone in any case, also after an error."""
    flag = tmp_path / "flag"
    with pytest.raises(KeyError), backy_moment({"type": "NAME", "flag": str(flag)}) as rest:
        assert flag.exists()
        assert not rest.frozen
        raise KeyError
    assert not flag.exists()
