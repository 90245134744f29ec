"""How things look in the charts: a model looks the same in all of them, and nothing is told by colour alone.

The colours are Okabe and Ito's (which colour-blind people can tell apart), adjusted so that each stands out
from white and from near black alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proact.lab.registry import MODELS

if TYPE_CHECKING:
    from collections.abc import Iterable

#: As many as people can surely tell apart. Seven and eleven have no common divisor, so 77 models differ.
_COLOURS: Final = ("#0a78b8", "#d08700", "#00966d", "#c8649c", "#3a9ad8", "#d55e00", "#85827c")
_MARKERS: Final = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "triangle-down",
    "cross",
    "x",
    "star",
    "hexagon",
    "pentagon",
    "bowtie",
)

#: The line of a model's family, which is what runs per message. proact's lines are wider.
_DASHES: Final = {"plain": "solid", "library": "dash", "proact": "solid", "ceiling": "dot"}

#: The parts of a thread's time: name, colour, and pattern of each.
PARTS: Final = {
    "copying": ("copying", "#0a78b8", ""),
    "asking": ("asking", "#d08700", "/"),
    "run_queue": ("run queue", "#c8649c", "x"),
    "user": ("user code", "#00966d", ""),
    "stalled": ("stalled", "#d55e00", "\\"),
    "probe": ("the probe itself", "#56504a", "|"),
    "waiting": ("waiting", "#a3a19b", "."),
    "others": ("others, beside", "#85827c", "-"),
}


@dataclass(frozen=True, slots=True)
class Look:
    """A model's colour, dash and marker, in plotly's terms."""

    colour: str
    dash: str
    width: float
    marker: str
    pattern: str

    def line(self) -> dict[str, Any]:
        """The look of a curve."""
        return {"color": self.colour, "dash": self.dash, "width": self.width}


def looks(models: dict[str, dict[str, str]]) -> dict[str, Look]:
    """The look of each model of a run. It does not depend on the other models, so two reports agree."""
    return {
        name: _look(place, models[name]["family"])
        for place, name in enumerate(_order(models))
        if name in models
    }


def _order(models: Iterable[str]) -> list[str]:
    """The models that this proact knows, then those that only the results know."""
    return [*MODELS, *sorted(set(models) - set(MODELS))]


def _look(place: int, family: str) -> Look:
    return Look(
        colour=_COLOURS[place % len(_COLOURS)],
        dash=_DASHES.get(family, "dashdot"),
        width=3.0 if family == "proact" else 1.7,
        marker=_MARKERS[place % len(_MARKERS)],
        pattern="/" if family == "ceiling" else "",
    )


def part_bars(part: str) -> dict[str, Any]:
    """The bars of one part of a thread's time."""
    _, colour, pattern = PARTS[part]
    strokes = {"bgcolor": colour, "fgcolor": "rgba(255, 255, 255, 0.7)", "solidity": 0.2, "size": 7}
    return {"color": colour, "pattern": {"shape": pattern} | strokes}
