"""A storage that keeps records, without anything that is far away."""

from __future__ import annotations

import hashlib

import pytest

from backy.errors import StorageError
from backy.repository.repository import Repository
from backy_storages_chunked import backy_storage


class Keeper:
    """Adds records that are kept elsewhere to `chunked`, and notes what happens in which order."""

    def __init__(self, inner, kept: dict[str, bytes], calls: list[str]) -> None:
        self.inner = inner
        self.kept = kept
        self.calls = calls

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def publish(self, name: str, content: bytes) -> None:
        assert not (name.endswith(".rev") and name in self.kept)
        self.calls.append(f"publish {name}")
        self.kept[name] = content

    def withdraw(self, name: str) -> None:
        self.calls.append(f"withdraw {name}")
        del self.kept[name]

    def published(self) -> dict[str, str]:
        if "unreachable" in self.kept:
            raise StorageError("the list can not be had")
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.kept.items()}

    def fetch(self, name: str) -> bytes:
        return self.kept[name]

    def purge(self, live):
        self.calls.append("purge")
        return self.inner.purge(live)

    def dispose(self) -> None:
        self.calls.append("dispose")
        self.inner.dispose()


def install(monkeypatch: pytest.MonkeyPatch, kept: dict[str, bytes], calls: list[str]) -> None:
    """Have repositories find a storage of the type `keeper`."""
    made = Repository.plugin

    def keeper(self: Repository, kind, section, job=None):
        if section.type != "keeper":
            return made(self, kind, section, job)
        return Keeper(backy_storage({"type": "chunked"}, job), kept, calls)

    monkeypatch.setattr(Repository, "plugin", keeper)
