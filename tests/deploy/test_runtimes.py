"""Networks timed side by side in torch and onnxruntime."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")

from wespeaker_lite.bin import cost
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.cost import LatencyOptions, times_side_by_side
from wespeaker_lite.deploy.runtimes import compare
from wespeaker_lite.recipe.experiment import from_given


def small(channels: int) -> object:
    model = {"name": "ecapa_tdnn", "channels": channels, "mfa_channels": channels, "embed_dim": 8}
    return from_given({"model": model}, "test")


def test_runs_are_interleaved() -> None:
    ran: list[str] = []
    times = times_side_by_side([lambda: ran.append("a"), lambda: ran.append("b")], repeats=3)
    assert "".join(ran) == "ab" * 4  # the first of each is not counted
    assert [len(of_run) for of_run in times] == [3, 3]


def test_each_network_is_timed_in_each_way() -> None:
    networks = {"one": small(16), "two": small(64)}
    found = compare(networks, ["torch", "onnx", "int8"], (1, 2), LatencyOptions(seconds=(0.5, 1), repeats=2))
    rows = {(row["network"], row["runtime"], row["threads"], row["input"]): row for row in found["latency"]}
    assert len(rows) == len(found["latency"]) == 16 + 4  # samples have no file in 8 bits
    assert ("one", "int8", 1, "feats") in rows
    for row in rows.values():
        assert list(row["seconds"]) == ["0.5", "1"]
        for figures in row["seconds"].values():
            low, high = figures["quartiles"]
            assert 0 < low <= figures["median"] <= high
    sizes = found["bytes"]["two"]
    assert sizes["feats.int8.onnx"] < sizes["feats.fp16.onnx"]
    assert sizes["feats.w8.onnx"] < sizes["feats.fp16.onnx"] < sizes["feats.onnx"] < sizes["samples.onnx"]
    assert 0 < found["peak_memory"]["one"] < 1 << 30
    with pytest.raises(InputError, match=r"--runtimes tflite: expected torch, onnx, int8, openvino"):
        compare(networks, ["tflite"], (1,), LatencyOptions())


def test_openvino_is_an_error_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="--runtimes openvino: install it first"):
        compare({"one": small(16)}, ["openvino"], (1,), LatencyOptions(seconds=(0.5,), repeats=1))


def test_the_program_adds_the_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x", "y"):
        (tmp_path / f"{name}.yaml").write_text("model: {name: ecapa_tdnn, channels: 16, mfa_channels: 16}\n")
    words = ["cost", "--config", str(tmp_path / "x.yaml"), "--runtimes", "onnx", "--beside", str(tmp_path / "y.yaml")]
    monkeypatch.setattr(sys, "argv", [*words, "--latency", "--repeats", "1"])
    cost.main()
    runtimes = json.loads(capsys.readouterr().out)["runtimes"]
    assert {row["network"] for row in runtimes["latency"]} == {"x", "y"}
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(InputError, match="--runtimes needs --latency"):
        cost.main()
