"""What all pictures have in common: their sizes and colours, on light and dark paper, wide and narrow."""

from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any, Literal

import altair as alt
from altair.utils.schemapi import debug_mode

Theme = Literal["light", "dark"]
Size = Literal["wide", "half", "narrow"]

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Fonts of the same widths: a label takes the room that was measured for it, wherever it is shown."""

CHARACTER = 5.6
"""Pixels that a character of a subtitle is wide, about."""

BOLD_CHARACTER = 7.6
"""The same of a title, in the widest of the usual fonts: a number that is cut off is another number."""


@dataclass(frozen=True)
class Look:
    """Sizes in pixels, colours as CSS has them.

    Args:
        width, height: of one panel, without its axes.
        paper, ink, label, grid: background, lines that matter, text that explains, lines that help.
        faint: one of many, such as a single seed.
        base, max: the two bounds.
        mark: a measurement that stands out.
        scheme, extent: Vega's name of the colours for values, low to high, and the part that shows on this paper.
    """

    width: int = 640
    height: int = 220
    paper: str = "#ffffff"
    ink: str = "#1f2933"
    label: str = "#52606d"
    grid: str = "#e4e7eb"
    faint: str = "#9aa5b1"
    base: str = "#0b7285"
    max: str = "#c92a2a"
    mark: str = "#e67700"
    scheme: Literal["viridis", "plasma"] = "viridis"
    extent: tuple[float, float] = (0.0, 0.92)

    def lines(self, text: str, character: float = CHARACTER) -> list[str]:
        """``text`` in lines that fit over a panel, of characters so wide."""
        return wrap(text, int(self.width / character)) or [""]

    def title(self, text: str, legend: str) -> alt.Title:
        """The heading of a picture, and what its marks mean."""
        return alt.Title(self.lines(text, BOLD_CHARACTER), subtitle=self.lines(legend), anchor="start", offset=10)

    def config(self) -> alt.Config:
        """Vega-Lite's configuration in these colours."""
        return alt.Config(
            background=self.paper,
            font=FONT,
            padding=8,
            axis=alt.AxisConfig(
                labelColor=self.label,
                titleColor=self.label,
                titleFontWeight="normal",
                titlePadding=8,
                labelSeparation=6,
                gridColor=self.grid,
                domainColor=self.faint,
                tickColor=self.faint,
            ),
            legend=alt.LegendConfig(
                labelColor=self.label, labelLimit=self.width - 40, titleColor=self.label, titleFontWeight="normal"
            ),
            title=alt.TitleConfig(color=self.ink, subtitleColor=self.label, fontSize=13, fontWeight=600),
            view=alt.ViewConfig(strokeWidth=0),
        )

    def hues(self, count: int) -> list[str]:
        """Colours to tell ``count`` things apart."""
        return [self.base, self.mark, self.max, self.label][:count]

    def dot(self, size: int = 55) -> dict[str, Any]:
        """A filled dot with a rim, readable on top of lines."""
        return {"filled": True, "size": size, "color": self.mark, "stroke": self.paper, "strokeWidth": 1, "opacity": 1}


LIGHT = Look()
DARK = Look(
    paper="#161b22",
    ink="#e6edf3",
    label="#9da7b3",
    grid="#2a313b",
    faint="#6b7785",
    base="#3bc9db",
    max="#ff8787",
    mark="#ffa94d",
    scheme="plasma",
    extent=(0.25, 1.0),
)
SIZES: dict[Size, dict[str, int]] = {
    "wide": {},
    "half": {"width": 400, "height": 200},
    "narrow": {"width": 260, "height": 170},
}
"""For a page, for half of one, for a phone."""


def data(rows: list[dict[str, Any]]) -> alt.InlineData:
    """Rows to draw, not checked one by one against Vega-Lite's schema: that takes longer than drawing them."""
    with debug_mode(False):
        return alt.InlineData(values=rows)


def look(theme: Theme = "light", size: Size = "wide") -> Look:
    """The look for a theme and the room there is.

    >>> look("dark", "narrow").width
    260
    """
    paper = DARK if theme == "dark" else LIGHT
    return replace(paper, **SIZES[size])  # type: ignore[arg-type]
