"""The command line: `promptlab VERB ...`; the console script and `python -m promptlab` both start at `main`.

Nothing heavy is imported before a command runs, so that `promptlab --help` is fast.
"""

from __future__ import annotations

from promptlab.cli.app import main

__all__ = ["main"]
