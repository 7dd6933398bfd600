"""Sphinx settings: Markdown pages with furo, nothing fetched from the network."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs import generate, notebook
from promptlab import __version__

# `make docs` writes the pages anew; a bare `sphinx-build` must find some.
if not generate.OUTPUT.is_dir() or not any(notebook.FOLDER.glob("*.md")):
    generate.main()

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
