"""How Sphinx makes the HTML pages: `make docs`."""

import builtins
import re
from importlib.metadata import version as _version

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

project = "backy"
author = "the backy maintainers"
version = release = _version("backy")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(collections|contextlib|dataclasses|datetime|pathlib|re|typing)\..*"),  # pages of others
    ("py:exc", r"\w+Error"),  # the page has those that plugins raise
]
default_role = "code"  # docstrings write code as the pages do
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
suppress_warnings = ["misc.highlighting_failure"]  # a command may go on over several lines, in quotes

html_theme = "furo"
html_title = f"backy {version}"
html_copy_source = False
html_show_sourcelink = False


def setup(app: Sphinx) -> None:
    """Let Sphinx show docstrings as they are written here."""
    app.connect("autodoc-process-docstring", _show_raises)
    app.connect("autodoc-process-signature", _hide_signature)
    app.connect("doctree-read", _drop_links_of_builtins)


def _show_raises(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Turn the section `Raises:`, which is the last one, into fields."""
    # napoleon would do so, but takes a colon in the text of an attribute for the end of its type
    if "Raises:" in lines:
        at = lines.index("Raises:")
        lines[at:] = [re.sub(r"^ {4}(?=\S)", ":raises ", line) for line in lines[at + 1 :]]


def _hide_signature(
    _app: Sphinx, _what: str, _name: str, found: object, _options: object, *_signature: str | None
) -> tuple[str, None] | None:
    """Show no way to call a protocol: nobody makes one."""
    return ("", None) if getattr(found, "_is_protocol", False) and isinstance(found, type) else None


def _drop_links_of_builtins(_app: Sphinx, document: nodes.document) -> None:
    """Make plain text of types such as `bytes`."""
    # else Sphinx takes a field of that name, such as `Stored.bytes`, for the type
    for reference in list(document.findall(pending_xref)):
        if reference["reftarget"] in vars(builtins):
            reference.replace_self(reference.children)
