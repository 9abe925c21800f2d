"""Markdown tables of metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from wespeaker_lite.scoring.results import iter_mean, iter_results, shown_metrics


def show_counts(results: Mapping[str, Any]) -> list[str]:
    """Describe the result of `evaluate.counts`, a line each."""
    lines = [
        f"{count} utterances of {name} are left out (--max-bad)." for name, count in results.get("left_out", {}).items()
    ]
    for name, odd in results.get("odd_trials", {}).items():
        lines.append(
            f"{name}: {odd['duplicates']} duplicate trials, {odd['of_itself']} of an utterance with itself; all count."
        )
    if small := results.get("small_cohort"):
        lines.append(f"The cohort has only {small['members']} of the {small['top_n']} members that AS-norm needs.")
    return lines


def results_table(results: Mapping[str, Any]) -> str:
    """The metrics of results.json as a table, with EER in percent, and those of calibrated scores if there are any."""
    counts = ("targets", "nontargets")
    metrics = shown_metrics(figures for _, _, figures in iter_results(results))
    rows = [
        [name, scoring, *(show_one(m, figures) for m in metrics), *(figures.get(count, "") for count in counts)]
        for name, scoring, figures in (*iter_results(results), *iter_mean(results))
    ]
    return table(["trials", "scoring", *map(title, metrics), *counts], rows)


def show_one(metric: str, figures: Mapping[str, Any]) -> str:
    """A metric as text, by `show`. It is empty if there is none."""
    return show(metric, figures[metric]) if metric in figures else ""


def title(metric: str) -> str:
    """The title of a metric."""
    names = {"eer": "EER %", "cllr": "Cllr", "min_cllr": "min Cllr"}
    kind, _, p_target = metric.partition("dcf_p")
    return names.get(metric, f"{kind}DCF (p={p_target})")


def show(metric: str, value: float, sign: str = "") -> str:
    """Format a metric: EER in percent with two decimals, costs with three."""
    return f"{100 * value:{sign}.2f}" if metric == "eer" else f"{value:{sign}.3f}"


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table with aligned columns: the first one left-aligned, the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    ruler = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [_line(row, widths) for row in (cells[0], ruler, *cells[1:])]
    return "".join(lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join([cells[0].ljust(widths[0]), *rest]) + " |\n"
