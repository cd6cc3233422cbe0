from __future__ import annotations

from pathlib import Path

import pytest

from backy.errors import ConfigError, PluginError, StorageError
from backy.making.making import try_storage

STORAGE = """
    from pathlib import Path
    from backy.api import ConfigError
    from backy.hookspecs import hookimpl
    class Storage:
        identity = "anidentity"
        def __init__(self, raw): self.raw = raw
        shares_chunks = True
        def initialize(self, identity): raise OSError(28, "No space left on device")
        def create(self, revision_id, parent, size, reliable): ...
        def open(self, revision_id): ...
        def repair(self, revision_id, index, chunk_id, data): ...
        def remove(self, revision_id): ...
        def held(self, live): ...
        def purge(self, live): ...
    class Raw:
        @staticmethod
        @hookimpl
        def backy_storage(config, job): return Storage(raw=True)
    class Away:
        @staticmethod
        @hookimpl
        def backy_storage(config, job): return Storage(raw=False)
    class Choosy:
        @staticmethod
        @hookimpl
        def backy_storage(config, job): raise ConfigError("config.storage.bucket is missing")
"""


def test_what_is_tried_leaves_nothing(tmp_path: Path) -> None:
    try_storage("chunked", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_may_be_far_away_is_not_tried(tmp_path: Path, distribution) -> None:
    distribution("acme", {"backy.storages": ["away:Away", "raw:Raw", "choosy:Choosy"]}, STORAGE)
    folder = tmp_path / "srv"
    folder.mkdir()
    try_storage("away", folder)
    with pytest.raises(StorageError, match="No space left"):
        try_storage("raw", folder)
    with pytest.raises(ConfigError, match="bucket is missing"):
        try_storage("choosy", folder)
    with pytest.raises(PluginError, match="no storage 'nowhere'"):
        try_storage("nowhere", folder)
    assert list(folder.iterdir()) == []
