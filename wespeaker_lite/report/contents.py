"""What the report of an experiment shows, before it becomes Markdown or HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wespeaker_lite.report.tables import show, show_counts, show_one


@dataclass(frozen=True)
class Row:
    """Figures of a trial list, or the mean of several, under one scoring; and 95 % intervals by metric, if drawn."""

    trials: str
    scoring: str
    figures: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]

    def shown(self, metric: str) -> str:
        """A figure with its interval; empty where there is none."""
        ends = self.intervals.get(metric)
        return show_one(metric, self.figures) + (show_interval(metric, ends) if ends else "")


@dataclass(frozen=True)
class Contents:
    """All of a report.

    replicates: of the bootstrap; 0 where there are no intervals. attention: what `attention_maps.write_attention` has
    left, or None. pictures: whether DET curves and histograms were drawn.
    """

    experiment: Path
    results: Mapping[str, Any]
    metrics: Sequence[str]
    rows: Sequence[Row]
    replicates: int
    attention: Mapping[str, Any] | None
    pictures: bool

    @property
    def folder(self) -> Path:
        """Where the report lies."""
        return self.experiment / "report"

    def notes(self) -> list[str]:
        """What a reader must know of the figures, a paragraph each."""
        lines = show_counts(self.results)
        if "params" in self.results:
            macs = self.results["macs_1s"] / 1e6
            lines.append(f"{self.results['params']:,} parameters, {macs:,.1f} M multiply-accumulates for 1 s.")
        if self.replicates:
            lines.append(f"In brackets: 95 % intervals by bootstrap over speakers, {self.replicates} replicates.")
        if "mean" in self.results:
            lines.append(f"The mean counts each list as much: {', '.join(self.results['mean']['lists'])}.")
        return lines


class Stages(NamedTuple):
    """A figure of each stage of networks: its name, what it is, and the figures by network."""

    title: str
    about: str
    network: str
    rows: dict[str, list[float]]

    @property
    def header(self) -> list[str]:
        """The names of the columns: the network, and the number of each stage."""
        count = len(next(iter(self.rows.values())))
        return [self.network, *(f"stage {number}" for number in range(1, count + 1))]


def about_stages(attention: Mapping[str, Any]) -> list[Stages]:
    """What was measured of attention maps; the last row of each is of a network that attends to all frames alike."""
    flat = "(all alike)"
    return [
        Stages(
            "Attention maps",
            f"Self-attention of the last block of each stage, averaged over heads: KL({attention['teacher']} || "
            f"student) in nats, the mean over rows and the first {attention['utterances']} test utterances, at most "
            f"{attention['seconds']:g} s of each. The last row is of a student that attends to all frames alike.",
            "student",
            {**attention["kl"], flat: attention["flat"]},
        ),
        Stages(
            "Entropy of attention",
            "Entropy of a row of a head, in nats, the mean over all: the lower, the sharper a network attends.",
            "network",
            {**attention["entropy"], flat: attention["flat_entropy"]},
        ),
    ]


def about_maps(attention: Mapping[str, Any]) -> str:
    """What the picture of attention maps shows."""
    return (
        f"The maps for the beginning of {attention['utterance']}: each row of a map is a query and shows where in time "
        "it looks."
    )


def show_interval(metric: str, ends: tuple[float, float], sign: str = "") -> str:
    """An interval's ends in brackets, with a space before it."""
    low, high = (show(metric, value, sign) for value in ends)
    return f" [{low}, {high}]"
