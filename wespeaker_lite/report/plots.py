"""DET curves, score histograms and attention maps as PNG. They need matplotlib, an extra."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from wespeaker_lite.core.files import replacing
from wespeaker_lite.report.training_curves import Curve
from wespeaker_lite.scoring.metrics import equal_error_rate, operating_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

# Okabe and Ito's palette for colour blindness, in the order of contrast on white. Line styles differ too, for grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (8, 2)), (0, (8, 2, 1, 2, 1, 2)), (0, (1, 4)), (0, (4, 4)))
TARGET, NONTARGET = COLOURS[0], COLOURS[1]

TICKS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95]) / 100


@dataclass(frozen=True)
class Scored:
    """Scores (n,) of a trial list with one scoring, and labels (n,), True for target trials."""

    scores: np.ndarray
    labels: np.ndarray


def draw_pictures(folder: str | Path, scored: Mapping[tuple[str, str], Scored]) -> bool:
    """Draw `det.png` of all pairs (list, scoring), and `hist_<list>_<scoring>.png` of each, into `folder`.

    Histograms of an earlier run are removed. Returns False, with a warning, if matplotlib is not installed.
    """
    if not _can_draw():
        return False
    folder = Path(folder)
    for stale in folder.glob("hist_*.png"):
        stale.unlink()
    _save(_det_figure(scored), folder / "det.png")
    for (trials, scoring), one in scored.items():
        _save(_histogram_figure(f"{trials}, {scoring}", one), folder / histogram_file(trials, scoring))
    return True


def histogram_file(trials: str, scoring: str) -> str:
    """The file name of a histogram."""
    return f"hist_{trials}_{scoring}.png"


def draw_training(path: Path, curves: Sequence[Curve]) -> bool:
    """Draw training curves, a panel for each.

    Returns False if there are none, or matplotlib is not installed. Then a picture of an earlier run is removed.
    """
    path.unlink(missing_ok=True)
    if not curves or not _can_draw():
        return False
    _save(_training_figure(curves), path)
    return True


def draw_attention_maps(path: str | Path, maps: Mapping[str, Sequence[np.ndarray]], seconds: float) -> bool:
    """Draw maps (T', T') over `seconds` of speech: a row for each system, a column for each stage.

    Returns False, with a warning, if matplotlib is not installed.
    """
    if not _can_draw():
        return False
    _save(_attention_figure(maps, seconds), Path(path))
    return True


def _can_draw() -> bool:
    try:
        import matplotlib.figure  # noqa: F401  its Figure needs no display and no global state of matplotlib
    except ImportError:
        log.warning("pictures not drawn: matplotlib is not installed; run: tools/install.sh --extras plots")
        return False
    return True


def _attention_figure(maps: Mapping[str, Sequence[np.ndarray]], seconds: float) -> "Figure":
    """Draw weights as multiples of a uniform map's, with one range of colours for each stage."""
    from matplotlib.figure import Figure

    stages = list(zip(*maps.values(), strict=True))
    size = (0.8 + 2.2 * len(stages), 0.8 + 2.2 * len(maps))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(len(maps), len(stages), sharex=True, sharey=True, squeeze=False)
    for column, stage in enumerate(stages):
        weights = [each * each.shape[1] for each in stage]
        low, high = np.quantile(weights, [0.01, 0.99])  # otherwise a few peaks would make the rest dark
        for axes, each in zip(grid[:, column], weights, strict=True):
            image = axes.imshow(each, vmin=low, vmax=high, extent=(0, seconds, 0, seconds), origin="lower")
        bar = figure.colorbar(image, ax=grid[:, column], location="bottom", extend="both", label="weight (uniform: 1)")
        bar.locator.set_params(nbins=4)
        grid[0, column].set_title(f"stage {column + 1}")
        grid[-1, column].set_xlabel("key (s)")
    for name, axes in zip(maps, grid[:, 0], strict=True):
        axes.set_ylabel(f"{name}\nquery (s)")
    return figure


def _training_figure(curves: Sequence[Curve]) -> "Figure":
    from matplotlib.figure import Figure

    rows = -(-len(curves) // 3)
    figure = Figure(figsize=(9.6, 0.4 + 2.2 * rows), dpi=150, layout="constrained")
    panels = figure.subplots(rows, 3, sharex=True, squeeze=False).flatten()
    for axes, curve in zip(panels, curves, strict=False):
        if curve.lines:
            axes.plot(*zip(*curve.lines, strict=True), color=COLOURS[0], linewidth=1)
        if curve.epochs:
            axes.plot(*zip(*curve.epochs, strict=True), "o", color=COLOURS[1], markersize=3)
        axes.set_title(curve.name.replace("$", r"\$"), fontsize="medium")
        axes.grid(color="0.9")
    for axes in panels[max(0, len(curves) - 3) : len(curves)]:
        axes.set_xlabel("epochs")
        axes.tick_params(labelbottom=True)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    return figure


def _det_figure(scored: Mapping[tuple[str, str], Scored]) -> "Figure":
    """Detection error trade-off on normal-deviate axes, where Gaussian scores give lines (Martin et al. 1997)."""
    figure, axes = _figure(6.4)
    lists = list(dict.fromkeys(trials for trials, _ in scored))
    scorings = list(dict.fromkeys(scoring for _, scoring in scored))
    rates = []
    for (trials, scoring), one in scored.items():
        points = operating_points(one.scores, one.labels)
        eer = float(equal_error_rate(points.miss, points.false_alarm))
        colour = COLOURS[lists.index(trials) % len(COLOURS)]
        style = STYLES[scorings.index(scoring) % len(STYLES)]
        corners = _corners(points.miss, points.false_alarm)
        label = f"{trials}, {scoring}: EER {100 * eer:.2f} %"
        curve = _probit(points.false_alarm[corners]), _probit(points.miss[corners])
        axes.plot(*curve, linestyle=style, color=colour, label=label)
        axes.plot(_probit(eer), _probit(eer), "o", color=colour, markeredgecolor="white", markersize=7, zorder=3)
        rates.append(eer)
    _probit_axes(axes, min(rates), max(rates))
    axes.set_title("Detection error trade-off")
    axes.legend(loc="upper right", fontsize="small")
    return figure


def _corners(miss: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
    """The points where the direction of a curve changes. The others, nearly all, need not be drawn."""
    turns = (np.diff(miss[:-1]) != np.diff(miss[1:])) | (np.diff(false_alarm[:-1]) != np.diff(false_alarm[1:]))
    return np.concatenate(([True], turns, [True]))


def _probit(rates: np.ndarray | float) -> np.ndarray:
    """Probits of rates, finite at 0 and 1."""
    inverse = np.frompyfunc(NormalDist().inv_cdf, 1, 1)
    return np.asarray(inverse(np.clip(rates, 1e-9, 1 - 1e-9)), dtype=np.float64)


def _probit_axes(axes: "Axes", lowest: float, highest: float) -> None:
    """Ticks in percent, from about a tenth of the lowest EER to three times the highest."""
    first = max(0, np.searchsorted(TICKS, lowest / 10, side="right") - 1)
    last = min(len(TICKS) - 1, np.searchsorted(TICKS, max(3 * highest, 0.05)))
    ticks = TICKS[first : last + 1]
    limits = _probit(ticks[[0, -1]])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(_probit(ticks), [f"{100 * tick:g}" for tick in ticks])
    axes.set(xlim=limits, ylim=limits, xlabel="false alarms (%)", ylabel="misses (%)", aspect="equal")
    axes.plot(limits, limits, color="0.6", linewidth=0.8, zorder=0)
    axes.grid(color="0.9")


def _histogram_figure(name: str, one: Scored) -> "Figure":
    figure, axes = _figure(4)
    points = operating_points(one.scores, one.labels)
    eer = float(equal_error_rate(points.miss, points.false_alarm))
    threshold = points.thresholds[:-1][np.argmax((points.miss >= points.false_alarm)[:-1])]
    bins = np.linspace(one.scores.min(), one.scores.max(), 81)
    for kind, colour, chosen in (("target", TARGET, one.labels), ("nontarget", NONTARGET, ~one.labels)):
        label = f"{kind} ({np.count_nonzero(chosen):,})"
        axes.hist(one.scores[chosen], bins, density=True, histtype="stepfilled", color=colour, alpha=0.45, label=label)
        axes.hist(one.scores[chosen], bins, density=True, histtype="step", color=colour)
    label = f"EER {100 * eer:.2f} %, at {threshold:.3f}"
    axes.axvline(threshold, color="0.2", linestyle="--", linewidth=1, label=label)
    axes.set(xlabel="score", ylabel="density", title=name)
    axes.legend(fontsize="small")
    return figure


def _figure(height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: "Figure", path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, format="png")
