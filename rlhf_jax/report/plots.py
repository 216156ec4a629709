"""The report's plots: a small SVG for each panel, placed inline in a page that sets the colours.

Colours are CSS variables (--ink, --muted, --grid, --series-0 to --series-7), so that one drawing serves a light and a
dark page; text stays text in the page's font. A panel is small because a phone shows it at nearly its natural size.
Figures are built without pyplot, and matplotlib's settings change only while a panel is drawn.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from rlhf_jax.intervals import Interval

NUM_COLORS = 8
NO_SERIES = -1
MAX_POINTS = 240  # points of a drawn curve; a longer curve is averaged in bins of equal size

# Placeholders that stand for CSS variables in matplotlib's SVG: colours that no drawing uses otherwise.
INK, MUTED, GRID = "#0100fe", "#0200fe", "#0300fe"
SERIES = [f"#0400{index:02x}" for index in range(NUM_COLORS)]
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
  color: f"var(--series-{index})" for index, color in enumerate(SERIES)
}
_MARKERS = "os^Dvp*X"
_DASHES = ["-", "--", ":", "-."]
# parse_math: a stage may be called "$x"; hashsalt: the same run gives the same page.
SETTINGS: dict[Any, Any] = {
  "svg.fonttype": "none",
  "svg.hashsalt": "panel",
  "text.parse_math": False,
  "path.simplify": True,
}
_ROUNDING = 1e-6  # a share may exceed 1 by float32's rounding


class Line(NamedTuple):
  """A curve through x[n], y[n].

  `color` is the number of a series of the page, or NO_SERIES for the colour of text. `kind` is "noisy" (drawn faintly,
  with its moving average), "dots" (few records) or "path" (a smooth trajectory with a mark at its end).
  """

  x: np.ndarray
  y: np.ndarray
  color: int
  kind: str = "noisy"


class Band(NamedTuple):
  """A group of runs over x[n]: aggregate[n] with its bounds low[n] and high[n], NaN where they are unknown.

  `members` are the curves of single runs, M arrays of [n]; () draws none.
  """

  x: np.ndarray
  aggregate: np.ndarray
  low: np.ndarray
  high: np.ndarray
  members: Sequence[np.ndarray] = ()


def band_panel(bands: Sequence[Band], *, x_label: str, y_label: str, percent: bool, root_scale: bool) -> str:
  """An SVG with a band for each group of runs, in the order of the colours. Options: see `line_panel`."""
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(3.7, 2.6), layout="constrained")
    axes = figure.add_subplot()
    _draw_bands(axes, bands)
    _label(axes, x_label, y_label, percent, root_scale)
    return page_svg(figure)


def _draw_bands(axes: Axes, bands: Sequence[Band]) -> None:
  for number, band in enumerate(bands):
    color = SERIES[number % NUM_COLORS]
    for member in band.members:
      axes.plot(band.x, member, color=color, linewidth=0.8, alpha=0.25, clip_on=False)
    if np.isfinite(band.low).all():
      axes.fill_between(band.x, band.low, band.high, color=color, alpha=0.22, linewidth=0)
    dash = _DASHES[number // NUM_COLORS % len(_DASHES)]
    marker = "o" if len(band.x) == 1 else None
    axes.plot(band.x, band.aggregate, color=color, linewidth=2, linestyle=dash, marker=marker, clip_on=False)


def line_panel(
  lines: Sequence[Line],
  *,
  x_label: str,
  y_label: str,
  percent: bool = False,
  root_scale: bool = False,
  guide: float | None = None,
) -> str:
  """An SVG with curves over one pair of axes.

  `percent`: y is a share; its axis runs from 0 to 100 %. `root_scale`: y is spaced by its square root. `guide`: height
  of a dotted line.
  """
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(3.7, 2.6), layout="constrained")
    axes = figure.add_subplot()
    if guide is not None:
      axes.axhline(guide, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
    for line in lines:
      _draw(axes, line)
    _label(axes, x_label, y_label, percent, root_scale)
    return page_svg(figure)


def _label(axes: Axes, x_label: str, y_label: str, percent: bool, root_scale: bool) -> None:
  if root_scale:
    axes.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0.0)), np.square))
  axes.set_xlabel(x_label)
  axes.set_ylabel(y_label)
  axes.xaxis.set_major_locator(MaxNLocator(5))
  axes.yaxis.set_major_locator(MaxNLocator(5))
  axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
  axes.yaxis.set_major_formatter(FuncFormatter(_percent if percent else _thousands))
  if percent and _within_shares(axes.dataLim.intervaly):
    axes.set_ylim(0, 1)
  if root_scale:
    axes.set_ylim(bottom=0)  # a margin below 0, squared, would cut off the curve's lowest part
  dress(axes, grid_axis="y")


def _within_shares(values: np.ndarray) -> bool:
  """Whether all that is drawn lies between 0 and 1; a user's own metric of a share's name may have another unit."""
  return bool(values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING)


def interval_panel(
  rows: Sequence[tuple[str, Interval, int]],
  *,
  x_label: str,
  percent: bool = False,
  unit: bool = False,
  guide: float | None = None,
) -> str:
  """An SVG with a row for each (label, interval, color): the mean as a dot, the interval as a bar.

  `unit`: x lies between 0 and 1, and so does its axis. `percent`: the same, with x as a percentage. `guide`: place of a
  dotted line.
  """
  with matplotlib.rc_context(SETTINGS):
    figure = Figure(figsize=(3.7, 0.7 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    if guide is not None:
      axes.axvline(guide, color=MUTED, linewidth=1.2, linestyle=(0, (2, 2)))
    for row, (_, interval, color) in enumerate(rows):
      if np.isfinite([interval.low, interval.high]).all():
        bounds = (max(interval.low, 0.0), min(interval.high, 1.0)) if percent or unit else (interval.low, interval.high)
        axes.hlines(row, *bounds, color=_color(color), linewidth=4, alpha=0.45)
      axes.plot([interval.mean], [row], marker="o", markersize=7, color=_color(color), clip_on=False)
      label = f"{100 * interval.mean:.0f} %" if percent else f"{interval.mean:.2f}"
      label = label.replace("-", "−")
      axes.text(1.05, row, label, transform=axes.get_yaxis_transform(), va="center", color=INK, fontsize=9.5)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(x_label)
    axes.margins(x=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent if percent else _thousands))
    if (percent or unit) and _within_shares(axes.dataLim.intervalx):
      axes.set_xlim(0, 1)
    dress(axes, grid_axis="x")
    axes.tick_params(axis="y", pad=8)  # room for a mark at the end of the axis
    for tick in axes.get_yticklabels():
      tick.set_color(INK)
      tick.set_fontsize(9.5)
    return page_svg(figure)


def moving_average(values: np.ndarray) -> np.ndarray:
  """Centred mean over a window of a twentieth of the curve: [n] -> [n]. The window shrinks at both ends."""
  window = max(1, len(values) // 20) | 1
  ones = np.ones(window)
  half = window // 2
  total = np.convolve(values, ones)[half : half + len(values)]
  return total / np.convolve(np.ones(len(values)), ones)[half : half + len(values)]


def thin_out(values: np.ndarray, points: int = MAX_POINTS) -> np.ndarray:
  """Means over stretches of equal length: [n] -> [min(n, points)]."""
  if len(values) <= points:
    return values
  return np.array([part.mean() for part in np.array_split(values, points)])


def _draw(axes: Axes, line: Line) -> None:
  color = _color(line.color)
  dash = _DASHES[max(line.color, 0) // NUM_COLORS % len(_DASHES)]
  marker = _MARKERS[line.color % len(_MARKERS)]
  x, y = thin_out(line.x), thin_out(line.y)
  if line.kind == "dots":
    axes.plot(x, y, color=color, linewidth=1.2, linestyle=dash, marker="o", markersize=3.6, clip_on=False)
  elif line.kind == "path":
    axes.plot(x, y, color=color, linewidth=2, linestyle=dash, clip_on=False)
    axes.plot(x[-1:], y[-1:], color=color, marker=marker, markersize=7, markeredgewidth=0, clip_on=False)
  else:
    smooth = thin_out(moving_average(line.y))
    axes.plot(x, y, color=color, linewidth=0.8, alpha=0.3, clip_on=False)
    axes.plot(x, smooth, color=color, linewidth=2, linestyle=dash, clip_on=False)
    axes.plot(x[-1:], smooth[-1:], color=color, marker=marker, markersize=5.5, markeredgewidth=0, clip_on=False)


def _color(index: int) -> str:
  return INK if index == NO_SERIES else SERIES[index % NUM_COLORS]


def dress(axes: Axes, *, grid_axis: Literal["x", "y"]) -> None:
  """Gives axes the look of the page: a grid along `grid_axis`, no frame, muted labels."""
  axes.set_axisbelow(True)
  axes.grid(axis=grid_axis, color=GRID, linewidth=0.8)
  for side in ("top", "right", "left"):
    axes.spines[side].set_visible(False)
  axes.spines["bottom"].set_color(GRID)
  axes.tick_params(length=0, colors=MUTED, labelsize=9.5)
  for label in (axes.xaxis.label, axes.yaxis.label):
    label.set_color(MUTED)
    label.set_fontsize(9.5)


def page_svg(figure: Figure) -> str:
  """The figure as SVG for an HTML page: no prolog, no metadata (it names web addresses), ids unlike any other
  panel's."""
  buffer = io.StringIO()
  figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :]
  # A style element would apply to the whole page.
  svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
  svg = re.sub(r'<svg[^>]*( viewBox="[^"]*")[^>]*>', r'<svg\1 aria-hidden="true">', svg, count=1)
  svg = re.sub(r' style="[^"]*"', lambda match: _page_style(match.group()), svg)
  prefix = "p" + hashlib.sha256(svg.encode()).hexdigest()[:8]
  svg = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg).replace("xlink:href", "href")
  return re.sub(r"\s*\n\s*", "\n", svg).strip()


def _page_style(style: str) -> str:
  style = re.sub(r"font-family:[^;\"]*;? ?", "", style)
  for color, variable in _VARIABLES.items():
    style = style.replace(color, variable)
  return style


def _thousands(value: float, _position: int | None = None) -> str:
  text = f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:.6g}"
  return text.replace("-", "−")


def _percent(value: float, _position: int | None = None) -> str:
  return f"{100 * value:.4g} %"
