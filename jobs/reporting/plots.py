"""The report's plots as inline SVG: no script, no fonts to load, text in the page's own colour."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = ("#4269d0", "#e8743b", "#3ca951", "#a463f2", "#c79200", "#d6407f")  # distinguishable on light and dark
INK = "#010203"  # stands for the page's text colour
BINS = 24


@dataclass(frozen=True)
class Curve:
    """Mean over applicants at each number of judgements; low and high bound its 95 % interval."""

    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def draw_curves(curves: Mapping[str, Curve], ylabel: str, salt: str, colours: Mapping[str, str]) -> Markup:
    """One line per name with its interval; a strategy that asks no judge is a dashed level.

    colours: of each name. salt: makes the ids inside this SVG differ from those of the page's other plots.
    """
    with mpl.rc_context(_settings(salt)):
        figure, axes = _axes()
        for name, curve in curves.items():
            colour = colours[name]
            if max(curve.x) == 0:
                axes.axhline(curve.mean[-1], color=colour, linestyle="--", linewidth=1.8, label=f"{name} (no judge)")
                continue
            marker = "o" if len(curve.x) <= 20 else None
            axes.plot(curve.x, curve.mean, color=colour, linewidth=2, marker=marker, markersize=3.5, label=name)
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        axes.set_xlabel("judgements per applicant")
        axes.set_ylabel(ylabel)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=9)
        return _svg(figure)


def draw_histograms(
    values: Mapping[str, Sequence[float]], xlabel: str, salt: str, colours: Mapping[str, str], span: tuple[float, float]
) -> Markup:
    """The share of each name's values per bin, as overlaid outlines. span: of the bins."""
    with mpl.rc_context(_settings(salt)):
        figure, axes = _axes()
        edges = np.linspace(*span, BINS + 1)
        for name, own in values.items():
            counts, _ = np.histogram(np.clip(own, *span), edges)
            share = counts / max(1, len(own))
            axes.stairs(share, edges, color=colours[name], linewidth=2, label=name)
            axes.stairs(share, edges, color=colours[name], alpha=0.12, fill=True)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("share of pairs")
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
        if len(values) > 1:
            axes.legend(frameon=False, fontsize=9)
        return _svg(figure)


def _settings(salt: str) -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.size": 10,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    }


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    sink = io.StringIO()
    figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None})
    svg = sink.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1)
    return Markup(svg)
