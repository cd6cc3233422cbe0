"""Writes `README` and two programs into repositories, by which they can be restored and audited without backy.

The programs are data here: they are copied into repositories, run on CPython 3.8 and later, and import no backy.
"""

from collections.abc import Mapping
from pathlib import Path

from backy.durable import write_if_different

README = "README"
PROGRAMS = ("restore.py", "audit.py")
_NO_HINT = "only with backy and the plugin '{type}'"


def explain(directory: Path, hints: Mapping[str, tuple[str, str | None]]) -> None:
    """Write the files into a repository's directory, unless they are there with this version's content.

    Args:
        directory: The repository.
        hints: By the folder of each storage its type, and how its data come back without backy if it says so.
    """
    lines = [f"* {place}: {hint or _NO_HINT.format(type=storage)}" for place, (storage, hint) in sorted(hints.items())]
    text = Path(__file__).with_name(README).read_text().replace("{hints}", "\n".join(lines))
    # readable for all: nothing in these files comes from a guest
    write_if_different(directory / README, text.encode(), 0o444)
    # for every storage: it lists the revisions, and tells which of them it can not read
    for program in PROGRAMS:
        write_if_different(directory / program, Path(__file__).with_name(program).read_bytes(), 0o555)
