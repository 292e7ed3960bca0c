"""Curves as PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt


def draw(title: str, x: str, figures: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """One panel below the other for each figure, over the same logarithmic x; y from 0."""
    drawn, panels = plt.subplots(len(figures), sharex=True, figsize=(7, 2.2 * len(figures)), squeeze=False)
    for panel, (name, points) in zip(panels[:, 0], figures.items(), strict=True):
        panel.plot([point[0] for point in points], [point[1] for point in points], marker="o")
        panel.set_xscale("log")
        panel.set_ylim(0, 1.1 * max(point[1] for point in points))
        panel.set_ylabel(name.replace(" per ", "\nper "))
        panel.grid(visible=True, alpha=0.3)
    panels[-1, 0].set_xlabel(x)
    panels[0, 0].set_title(title)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
