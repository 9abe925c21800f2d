"""The content of an experiment's report, without its format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from wespeaker_lite.report.tables import show, show_counts, show_one


@dataclass(frozen=True)
class Row:
    """Metrics of a trial list, or the mean over several, with one scoring; and 95 % intervals by metric, if any."""

    trials: str
    scoring: str
    figures: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]

    def shown(self, metric: str) -> str:
        """A metric with its interval, as text. It is empty if there is none."""
        ends = self.intervals.get(metric)
        return show_one(metric, self.figures) + (show_interval(metric, ends) if ends else "")


@dataclass(frozen=True)
class Contents:
    """The content of a report.

    replicates: replicates of the bootstrap, or 0 without intervals. attention: the values of
    `attention_maps.write_attention`, or None. pictures: whether DET curves and histograms were drawn.
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
        """The folder of the report."""
        return self.experiment / "report"

    def notes(self) -> list[str]:
        """Notes on the metrics, a paragraph each."""
        lines = show_counts(self.results)
        if "params" in self.results:
            macs = self.results["macs_1s"] / 1e6
            lines.append(f"{self.results['params']:,} parameters, {macs:,.1f} M multiply-accumulates for 1 s.")
        if self.replicates:
            lines.append(f"In brackets: 95 % intervals by bootstrap over speakers, {self.replicates} replicates.")
        if "mean" in self.results:
            lines.append(f"The mean has equal weights for the lists: {', '.join(self.results['mean']['lists'])}.")
        return lines


class Stages(NamedTuple):
    """A value for each stage of networks: its name, its description, and the values by network."""

    title: str
    about: str
    network: str
    rows: dict[str, list[float]]

    @property
    def header(self) -> list[str]:
        """The names of the columns: the network, and the stages."""
        count = len(next(iter(self.rows.values())))
        return [self.network, *(f"stage {number}" for number in range(1, count + 1))]


def about_stages(attention: Mapping[str, Any]) -> list[Stages]:
    """The values of attention maps. The last row of each table is of uniform maps."""
    flat = "(uniform)"
    return [
        Stages(
            "Attention maps",
            f"Self-attention of the last block of each stage, averaged over heads: KL({attention['teacher']} || "
            f"student) in nats, the mean over rows and the first {attention['utterances']} test utterances, at most "
            f"{attention['seconds']:g} s of each. The last row is of a uniform map.",
            "student",
            {**attention["kl"], flat: attention["flat"]},
        ),
        Stages(
            "Entropy of attention",
            "Mean entropy of a row of a head, in nats. Sharper maps have a lower entropy.",
            "network",
            {**attention["entropy"], flat: attention["flat_entropy"]},
        ),
    ]


def about_maps(attention: Mapping[str, Any]) -> str:
    """The caption of the picture of attention maps."""
    return f"The maps for the beginning of {attention['utterance']}: rows are queries, columns are keys."


def show_interval(metric: str, ends: tuple[float, float], sign: str = "") -> str:
    """The ends of an interval in brackets, after a space."""
    low, high = (show(metric, value, sign) for value in ends)
    return f" [{low}, {high}]"
