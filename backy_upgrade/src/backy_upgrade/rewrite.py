"""Writes a configuration of backy 2 in the form of backy 3. Only what has another form changes: all else stays."""

import difflib
import os
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

import click
import yaml

from backy.api import BackyError
from backy.durable import read_file, write_file
from backy_upgrade.records import FOREVER, LARGEST, source_type

_VARIABLES = {"BACKY_CMD", "BACKY_RBD", "BACKY_CP", "BACKY_BASH", "CEPH_ARGS", "CEPH_CLUSTER"}
"""Those of the environment that backy 2 read, or the programs that it called."""
_SOURCE, _SCHEDULERS = ("backend", "cow"), ("api", "peers")
"""Keys of a source and of a scheduler that are there no more."""
_CHANGED = {*_SOURCE, *_SCHEDULERS, "storage", "type", "keep"}


def rewrite_file(path: Path, *, dry_run: bool) -> str:
    """Write a configuration anew, unless it is `dry_run`; show the difference and return what was done.

    Raises:
        BackyError: it is not YAML, or of a form that has to be changed by hand.
        OSError: it can not be read or written; then it is as it was.
    """
    # what a link leads to: the link stays
    path = path.resolve()
    content = read_file(path, LARGEST)
    for name in sorted(_VARIABLES & os.environ.keys()):
        click.echo(f"{name} is set in the environment: backy 3 does not know it", err=True)
    try:
        old = content.decode()
        new = _new(old)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BackyError(f"{path} is not rewritten, change it by hand: {' '.join(str(error).split())}") from error
    if new == old:
        return f"{path} has nothing that only backy 2 knows"
    click.echo("\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), f"{path}", "new", n=1, lineterm="")))
    if dry_run:
        return f"{path} stays as it is"
    status, copy = path.stat(), path.with_name(f"{path.name}.backy-2")
    if copy.exists() and copy.read_bytes() != content:
        raise BackyError(f"{copy} is there already; move it away, so that it can have a copy of {path}")
    for target, text in ((copy, content), (path, new.encode())):
        write_file(target, text, status.st_mode & 0o777)
        os.chown(target, status.st_uid, status.st_gid)
    return f"{path} is rewritten, {copy} is what it was; 'backy check-config -c {path}' tells what else is wrong"


def _new(text: str) -> str:
    """Return a configuration in its new form; raises ValueError if that has to be done by hand."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    new = text
    # from the end, so that what is before stays where it is; what an alias repeats is changed once
    for begin, end, words in sorted(set(_edits(root, text, _SCHEDULERS)), reverse=True):
        new = new[:begin] + words + new[end:]
    # by hand it may be written in any way
    if _kept(yaml.compose(new, Loader=yaml.SafeLoader)) != _kept(root):
        raise ValueError("the parts that change are written in an unusual way")
    return new


def _kept(node: yaml.Node | None) -> object:
    """Return the content of a part of the document, but for what changes."""
    if isinstance(node, yaml.MappingNode):
        return [(key.value, _kept(value)) for key, value in node.value if key.value not in _CHANGED]
    return repr(node)


def _edits(node: yaml.Node | None, text: str, gone: Iterable[str] = ()) -> Iterator[tuple[int, int, str]]:
    """Yield begin and end of each text that changes, and what takes its place; the keys `gone` are there no more."""
    if not isinstance(node, yaml.MappingNode):
        return
    found = _found(node)
    yield from _removals(node, text, gone)
    for key, value in node.value:
        begin, end = value.start_mark.index, value.end_mark.index
        if key.value == "source":
            separator, at = ", " if node.flow_style else f"\n{' ' * key.start_mark.column}", key.start_mark.index
            backend = _found(value).get("backend")
            if backend and "storage" not in found:
                yield at, at, f"storage: {backend.value.removesuffix('file')}{separator}"
            yield from _edits(value, text, _SOURCE)
        elif key.value == "type" and gone is _SOURCE and source_type(value.value, found) != value.value:
            yield (begin, end, source_type(value.value, found))
        elif key.value == "keep" and "interval" in found and value.value == "0":
            yield (begin, end, str(FOREVER))
        else:
            yield from _edits(value, text, _SCHEDULERS if key.value in {"global", "config"} else ())


def _found(node: yaml.Node) -> dict[str, yaml.Node]:
    """Return the values of a part by their keys, with those that it merges."""
    own = {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
    return {**_found(own["<<"]), **own} if "<<" in own else own


def _removals(node: yaml.MappingNode, text: str, gone: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Yield the removal of keys with their values: whole lines, unless all is between braces."""
    after_another = False
    for (key, value), following in zip_longest(node.value, node.value[1:]):
        begin, end = key.start_mark.index, _end(value)
        if key.value not in gone:
            after_another = True
        elif not node.flow_style:
            yield (text.rfind("\n", 0, begin) + 1, text.find("\n", end) + 1 or len(text), "")
        elif after_another:
            yield (text.rfind(",", 0, begin), end, "")
        else:
            yield (begin, following[0].start_mark.index if following else end, "")


def _end(node: yaml.Node) -> int:
    """Return where a value ends; that of an indented one lies before the comments that follow."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(node, yaml.MappingNode) else last
    return int(node.end_mark.index)
