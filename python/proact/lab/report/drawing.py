"""plotly.js, which draws the charts in the browser: from the package ``plotly``, so nothing is downloaded."""

from __future__ import annotations

import importlib
import importlib.util


class DrawingError(RuntimeError):
    """The charts cannot be drawn here."""


def require() -> None:
    """Raise DrawingError, which says what helps, if plotly is not installed."""
    if importlib.util.find_spec("plotly") is None:
        raise DrawingError("the HTML report is drawn by plotly: pip install 'proact[lab]'")


def plotly_js() -> str:
    """The library's source, about 4.6 MiB. Raises DrawingError."""
    require()
    source: str = importlib.import_module("plotly.offline").get_plotlyjs()
    return source
