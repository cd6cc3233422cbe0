"""Writes repositories as backy 2 did, in all variants that there have been. Fixtures and vectors prove it right."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mmh3
import yaml
from lzallright import LZOCompressor

CHUNK = 4 * 2**20
FIRST = datetime(2024, 5, 1, 2, 30, 0, 123456, UTC)
NESTED = "source: {type: file, filename: /srv/vm.img}\nschedule: {daily: {interval: 1d, keep: 7}}\n"


def compressed(data: bytes) -> bytes:
    """Return the content of a chunk's file."""
    return b"\xf0" + len(data).to_bytes(4, "big") + LZOCompressor().compress(data)


class Old:
    """A repository of backy 2."""

    def __init__(self, directory: Path, config: str = NESTED, *, levels: int = 1) -> None:
        self.directory = directory
        self.levels = levels
        directory.mkdir()
        (directory / "config").write_text(config)
        (directory / "config").chmod(0o440)
        for name in (".backup", ".purge"):
            (directory / name).touch()
        if levels == 1:
            (directory / "chunks").mkdir()
            (directory / "chunks/store").write_text("v2")
        self.number = 0

    def add(self, revision_id: str, image: bytes, *, chunked: bool = True, **more: object) -> str:
        """Add a revision, a day after the one before; `more` are members of its record, None for a missing one."""
        record = {
            "backend_type": "chunked" if chunked else "cowfile",
            "parent": "",
            "stats": {"bytes_written": len(image), "duration": 12.5},
            "tags": ["daily"],
            "timestamp": FIRST + timedelta(days=self.number),
            "trust": "trusted",
            "uuid": revision_id,
            **more,
        }
        self.number += 1
        record = {key: value for key, value in record.items() if value is not None}
        self.write(f"{revision_id}.rev", yaml.safe_dump(record).encode())
        self.write(revision_id, self.map(image) if chunked else image)
        return revision_id

    def map(self, image: bytes) -> bytes:
        """Store the chunks of an image; return its map."""
        pieces = [image[begin : begin + CHUNK] for begin in range(0, len(image), CHUNK)]
        mapping = {str(index): self.store(piece) for index, piece in enumerate(pieces)}
        return json.dumps({"mapping": mapping, "size": len(image)}).encode()

    def store(self, data: bytes) -> str:
        """Store a chunk; return its id."""
        name = mmh3.hash_bytes(data, 0, True).hex()
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(compressed(data))
            path.chmod(0o440)
        return name

    def path(self, name: str) -> Path:
        """Return the file of a chunk."""
        folder = self.directory / "chunks" / name[:2]
        return (folder if self.levels == 1 else folder / name[2:4]) / f"{name}.chunk.lzo"

    def chunk(self, revision_id: str, index: int) -> Path:
        """Return the file of a chunk of a revision."""
        return self.path(json.loads((self.directory / revision_id).read_bytes())["mapping"][str(index)])

    def write(self, name: str, content: bytes) -> None:
        """Write a file that nobody changes any more."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o440)
