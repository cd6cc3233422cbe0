"""A folder of files `0`, `1`, ..., each of them a piece of the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from backy.api import Config, ConfigError, Extent, Job, Snapshot, Source, SourceError
from backy.config import typed
from backy.hookspecs import hookimpl

BACKY_CONTRACT = "1.0"


class PiecesConfig(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    folder: str


class Pieces:
    verifier = "one"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        if not self._folder.is_dir():
            raise SourceError(f"{self._folder} is no folder")
        yield Frozen(b"".join(path.read_bytes() for path in sorted(self._folder.iterdir())))


class Frozen:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def changes(self) -> Iterable[Extent] | None:
        return None

    def extents(self) -> Iterable[Extent]:
        yield Extent(0, self.size, data=True)

    def pread(self, offset: int, length: int) -> bytes:
        if offset + length > self.size:
            raise SourceError("beyond the end")
        return self._content[offset : offset + length]


@hookimpl
def backy_source(config: Config, job: Job) -> Source:
    return Pieces(Path(typed(config, PiecesConfig, "config.source").folder))


@hookimpl
def backy_source_config(argument: str) -> Config:
    if not argument:
        raise ConfigError("SOURCE is a folder")
    return {"folder": argument}
