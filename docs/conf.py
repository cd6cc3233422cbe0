"""How Sphinx makes the HTML pages and the man pages: `make docs`."""

from importlib.metadata import version as _version

project = "backy"
author = "the backy maintainers"
version = release = _version("backy")

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # a command may go on over several lines, in quotes

html_theme = "furo"
html_title = f"backy {version}"
html_copy_source = False
html_show_sourcelink = False

man_pages = [
    ("reference/cli", "backy", "back up images of virtual machines and get them back", author, 1),
    ("reference/backy-conf", "backy.conf", "configuration of the scheduler", author, 5),
]
