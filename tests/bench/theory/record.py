"""What an experiment has to show: predictions beside measurements, as JSON and as a figure."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over one thing that was varied."""

    name: str
    """What was measured, and by which rule of symlint."""
    kind: Literal["count", "value", "rising"]
    """Medians equal; within 5% (where 0 is predicted, of the smallest other prediction); or only never falling."""
    varied: str
    at: list[float]
    predicted: list[float]
    """One number for each of `at`; empty where theory gives none."""
    measured: list[list[float]]
    """For each of `at` one number per seed."""
    curve: list[list[float]] = field(default_factory=list)
    """The prediction between, as abscissae and ordinates, for the figure alone."""
    logarithmic: bool = False
    """Whether `at` is drawn in logarithms, 0 beside them."""

    @property
    def medians(self) -> list[float]:
        """Over the seeds."""
        return [median(values) for values in self.measured]

    def misses(self) -> list[str]:
        """Where measurement and prediction disagree."""
        if self.kind == "rising":
            return [f"{self.name}: {b} after {a}" for a, b in pairwise(self.medians) if b < a]
        least = min((abs(p) for p in self.predicted if p), default=0.0)
        allowed = 0.0 if self.kind == "count" else 0.05
        return [
            f"{self.name} at {at:g}: {found:g}, and {expected:g} was predicted"
            for at, found, expected in zip(self.at, self.medians, self.predicted, strict=True)
            if abs(found - expected) > allowed * max(abs(expected), least)
        ]


@dataclass(frozen=True, slots=True)
class Result:
    """One experiment."""

    experiment: str
    claim: str
    source: str
    training: str
    series: list[Series]

    def misses(self) -> list[str]:
        """Where measurement and prediction disagree."""
        return [miss for series in self.series for miss in series.misses()]

    def save(self, folder: Path) -> None:
        """Write `results/NAME.json` and draw `figures/NAME.svg`."""
        for part in ("results", "figures"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        text = json.dumps(_rounded(asdict(self)), indent=1)
        text = re.sub(r"\[\s+([^][{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text)
        (folder / "results" / f"{self.experiment}.json").write_text(text + "\n")
        (folder / "figures" / f"{self.experiment}.svg").write_text(_drawn(self))


def read(path: Path) -> Result:
    """A result that was saved."""
    stored = json.loads(path.read_text())
    return Result(**{**stored, "series": [Series(**series) for series in stored["series"]]})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _drawn(result: Result) -> str:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": result.experiment, "axes.spines.top": False, "axes.spines.right": False})
    mpl.rcParams["svg.fonttype"] = "none"  # letters, which take a quarter of the room of their outlines
    shown = [series for series in result.series if len(series.at) > 1]
    figure, panels = plt.subplots(1, len(shown), figsize=(3.9 * len(shown), 3.1), layout="constrained", squeeze=False)
    for panel, series in zip(panels[0], shown, strict=True):
        for at, values in zip(series.at, series.measured, strict=True):
            panel.plot([at] * len(values), values, "o", color="#c2410c", alpha=0.25, ms=4, mew=0)
        panel.plot(series.at, series.medians, "o", color="#c2410c", ms=5, mfc="none", label="measured, median of seeds")
        if series.curve:
            panel.plot(*series.curve, "-", color="#1f2937", lw=1.2, label="predicted", zorder=0)
        elif series.predicted:
            panel.plot(series.at, series.predicted, "_", color="#1f2937", ms=14, label="predicted", zorder=0)
        if series.logarithmic:
            panel.set_xscale("symlog", linthresh=min(at for at in series.at if at > 0))
        panel.set_title(series.name, fontsize=9)
        panel.set_xlabel(series.varied, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.legend(frameon=False, fontsize=7)
    for series in result.series:
        if len(series.at) == 1:
            panels[0, 0].axvline(series.predicted[0], color="#1f2937", lw=0.8, ls=":")
            panels[0, 0].annotate(f" {series.varied}", (series.predicted[0], 20), ha="right", fontsize=8)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    short = re.sub(r"\b[1-9]\d*\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text.getvalue())
    return re.sub(r"\n\s*|<!--.*?-->", "\n", short).replace("\n\n", "\n")
