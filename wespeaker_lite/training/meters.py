"""Metrics of a run: mean losses, speed and share of waiting time since the last line of the log; metrics.jsonl."""

import json
import time
from pathlib import Path

from wespeaker_lite.core.files import naming, write_text


class Meters:
    """Means of losses over the batches since `clear`, and the share of time waiting for data."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset all sums."""
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._crops = 0
        self._waited = 0.0
        self._started = time.monotonic()

    def add(self, values: dict[str, float], crops: int, waited: float) -> None:
        """Add a batch: its losses, its number of crops, and the seconds of waiting for it."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._crops += crops
        self._waited += waited

    def summary(self) -> dict[str, float]:
        """Means of the losses (over the batches that had them), `utt_per_s`, and `wait`, the share of time waiting."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        return {**means, "utt_per_s": self._crops / seconds, "wait": self._waited / seconds}


class MetricsFile:
    """metrics.jsonl: one JSON object per line, in the order of steps."""

    def __init__(self, path: str | Path, step: int) -> None:
        """Open for appending after `step`. Lines of later steps, from a run that was stopped, are dropped."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            # the last line of a killed run may be incomplete
            kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
            write_text(self.path, "".join(kept))

    def append(self, record: dict[str, float]) -> None:
        """Add one line."""
        with naming(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def as_words(values: dict[str, float]) -> str:
    """Format values as `name 1.2345` for a line of the log."""
    return " ".join(f"{name} {value:.4g}" for name, value in values.items())
