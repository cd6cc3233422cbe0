"""A source that needs no disk: one letter, as often as its configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from backy.api import Config, ConfigError, Extent, Snapshot
from backy.hookspecs import hookimpl


class Pattern:
    """Source and snapshot in one, as nothing ever changes."""

    verifier = "full"

    def __init__(self, letter: str, size: int) -> None:
        self.size = size
        self._letter = letter.encode()

    @contextmanager
    def snapshot(self, revision_id: str, parent: str | None) -> Iterator[Snapshot]:
        yield self

    def changes(self) -> Iterable[Extent]:
        return ()

    def extents(self) -> Iterable[Extent]:
        yield Extent(0, self.size, data=True)

    def pread(self, offset: int, length: int) -> bytes:
        return self._letter * length


@hookimpl
def backy_source(config: Config) -> Pattern:
    return Pattern(config["letter"], config["size"])


@hookimpl
def backy_source_config(argument: str) -> Config:
    letter, _, size = argument.partition(":")
    if len(letter.encode()) != 1 or not size.isdigit():
        raise ConfigError("SOURCE of the type 'pattern' is a letter and a size, as in 'x:1000'")
    return {"letter": letter, "size": int(size)}
