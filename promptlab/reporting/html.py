"""Report -> one HTML page that opens offline: its style and charts stand inside, it has no script and loads nothing.

Everything from data files is escaped by the template; only the charts, which are drawn here, go in as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptlab.reporting.document import Document, Figure, Part

_FOLDER = Path(__file__).parent
_TEMPLATE, _STYLE = "report.html.jinja", "report.css"


def to_html(document: Document) -> str:
    """The whole report as a page."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["part"] = _is_part
    environment.filters["draw"] = _draw_all
    style = Markup((_FOLDER / _STYLE).read_text(encoding="utf-8"))
    return environment.get_template(_TEMPLATE).render(document=document, style=style)


def _is_part(part: Part, name: str) -> bool:
    return type(part).__name__ == name


def _draw_all(figure: Figure) -> list[Any]:
    """The figure's charts as SVG elements; their texts were escaped when the tree was written."""
    from markupsafe import Markup

    from promptlab.reporting.charts import draw

    return [Markup(draw(panel)) for panel in figure.panels]
