"""The types that a plugin implements or receives: all that `backy/contract/` defines, and the errors for plugins.

The factory hooks of `backy.hookspecs` make sources, storages and verifiers. Each of them returns an object that fits
one of these protocols.

Offsets, lengths and sizes are bytes. A chunk is `CHUNK_SIZE` bytes of an image; the last chunk may be shorter. The
chunk with index `n` starts at `n * CHUNK_SIZE`. Its id is the BLAKE3-256 of its content.
"""

# "A as A" and "*" tell type checkers that a name is public here
# ruff: noqa: F403, PLC0414
# ruff: isort: skip_file
from backy.contract.images import *
from backy.contract.plugins import *
from backy.contract.storages import *

# the errors that concern plugins; they lie below, so that every room can raise them
from backy.errors import (
    BackyError as BackyError,
    ChunkDamageError as ChunkDamageError,
    ConfigError as ConfigError,
    SourceBusyError as SourceBusyError,
    SourceError as SourceError,
    StorageError as StorageError,
    TargetError as TargetError,
)
