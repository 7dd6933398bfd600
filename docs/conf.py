"""Sphinx settings: Markdown pages with furo, nothing fetched from the network."""

from promptlab import __version__

project = "promptlab"
author = "The promptlab authors"
version = release = __version__
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "promptlab"
html_copy_source = False
html_show_sphinx = False
# The generated pages are missing where only `sphinx-build` is called; the rest still builds.
suppress_warnings = ["toc.empty_glob"]
