"""Writing of losses to metrics.jsonl."""

from pathlib import Path

import pytest

from tests.limits import small_files
from wespeaker_lite.training.meters import MetricsFile


def test_a_full_disk_is_an_error_and_a_partial_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    metrics.append({"step": 1, "loss": 0.5})
    line = path.read_text()
    with small_files(len(line) + 5), pytest.raises(OSError, match=f"File too large: '{path}'"):
        metrics.append({"step": 2, "loss": 0.25})
    MetricsFile(path, 2).append({"step": 2, "loss": 0.25})
    assert path.read_text() == line + line.replace("1", "2").replace("0.5", "0.25")
