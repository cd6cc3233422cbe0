"""Copies in one process."""

from tests.copying import _first, copy, origin, talk
from tests.playing import _play, play

__all__ = ["_first", "_play", "copy", "origin", "play", "talk"]
