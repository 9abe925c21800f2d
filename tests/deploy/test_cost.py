import json
import sys

import pytest
import torch
from torch import nn

from wespeaker_lite import models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.cost import LatencyOptions, count_macs, count_parameters, latency, report
from wespeaker_lite.models.margin import build_head


class Stack(nn.Module):
    """One layer of each counted type, and a norm, which is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 12, 3, stride=2, padding=1, groups=4)
        self.norm = nn.BatchNorm1d(12)
        self.plane = nn.Conv2d(1, 5, (3, 2), padding=(1, 0))
        self.linear = nn.Linear(12, 6)

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.conv(feats.transpose(1, 2)))
        self.plane(maps.unsqueeze(1))
        tokens = self.linear(maps.transpose(1, 2)).unsqueeze(1)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2))


def test_macs_equal_a_count_by_hand():
    halved = 10
    conv = halved * 12 * (8 // 4) * 3
    plane = 12 * (halved - 1) * 5 * 3 * 2
    linear = halved * 12 * 6
    attention = 2 * halved * halved * 6
    assert count_macs(Stack(), 8, frames=20) == conv + plane + linear + attention


def test_parameters_equal_a_count_by_hand():
    model = Stack()
    model.plane.requires_grad_(False)
    assert count_parameters(model) == (12 * 2 * 3 + 12) + 2 * 12 + (5 * 6 + 5) + (12 * 6 + 6)


def test_measuring_does_not_change_the_model_or_the_random_state():
    model, threads = Stack().train(), torch.get_num_threads()
    statistics, state = model.norm.running_mean.clone(), torch.get_rng_state()
    report(model, 8, {}, LatencyOptions(seconds=(0.2,), threads=threads + 1, repeats=1))
    assert model.training
    assert torch.equal(model.norm.running_mean, statistics)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("name", "options", "frames", "giga"),
    # 2 s, the length behind the tables of the field. Theirs say 1.04 for ECAPA, as they compute the context of its
    # attention in every frame, and 4.55 for ResNet34, as they count the batch norms.
    # NeXt-TDNN's paper says 0.35.
    [
        ("ecapa_tdnn", {}, 200, 0.959),
        ("resnet", {}, 200, 4.528),
        ("campplus", {}, 200, 1.073),
        ("next_tdnn", {}, 200, 0.348),
    ],
)
def test_macs_of_the_networks(name, options, frames, giga):
    assert count_macs(models.build(name, options, 80), 80, frames) / 1e9 == pytest.approx(giga, abs=5e-4)


def test_latency_runs_each_length_as_often_as_asked():
    frames = []

    class Recorder(nn.Linear):
        def forward(self, feats: torch.Tensor) -> torch.Tensor:
            frames.append(feats.shape)
            return super().forward(feats).mean(1)

    times = latency(Recorder(8, 2), 8, LatencyOptions(seconds=(1, 2.5), repeats=3))
    assert list(times) == ["1", "2.5"]
    assert min(times.values()) > 0
    assert frames == [(1, 100, 8)] * 4 + [(1, 250, 8)] * 4


def test_a_report_counts_training_only_parts_separately():
    head = build_head({"subcenters": 2}, 6, 10)
    assert report(Stack(), 8, {"head": head}, None) == {
        "params": count_parameters(Stack()),
        "macs_1s": count_macs(Stack(), 8, 100),
        "training_only_params": {"head": 2 * 10 * 6},
    }


@pytest.mark.parametrize("options", [{"threads": 0}, {"repeats": 0}, {"seconds": (0.001,)}])
def test_options_that_measure_nothing_are_refused(options):
    with pytest.raises(InputError, match="at least 1"):
        LatencyOptions(**options)


def test_the_program_prints_one_json_object(tmp_path, monkeypatch, capsys):
    from wespeaker_lite.bin import cost

    config = tmp_path / "net.yaml"
    config.write_text("model: {name: ecapa_tdnn, channels: 16, embed_dim: 8}\nhead: {name: am, subcenters: 3}\n")
    monkeypatch.setattr(sys, "argv", ["cost", "--config", str(config), "--classes", "5", "--latency", "--repeats", "1"])
    cost.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed["params"] == count_parameters(models.build("ecapa_tdnn", {"channels": 16, "embed_dim": 8}, 80))
    assert printed["training_only_params"] == {"head": 3 * 5 * 8}
    assert list(printed["latency_seconds"]) == ["1", "2", "3", "5", "10"]


def test_a_self_teacher_is_counted_separately(tmp_path, monkeypatch, capsys):
    from wespeaker_lite.bin import cost

    config = tmp_path / "net.yaml"
    config.write_text(
        "model: {name: ecapa_tdnn, channels: 16, embed_dim: 8}\n"
        "distill: {teacher: t.yaml, terms: [{name: self_teacher, pooling: statistics}, {name: embedding}]}\n"
    )
    monkeypatch.setattr(sys, "argv", ["cost", "--config", str(config), "--classes", "5"])
    cost.main()
    printed = json.loads(capsys.readouterr().out)
    plain = models.build("ecapa_tdnn", {"channels": 16, "embed_dim": 8}, 80)
    assert printed["params"] == count_parameters(plain)
    assert printed["macs_1s"] == count_macs(plain, 80)
    pointwise, refined = 16 * 16 + 2 * 16, 2 * (16 * 3 + 16 * 16 + 2 * 16)
    # three laterals and two more, two joins each way of two and three maps; norm of the statistics, embedding, head
    enhancement = 5 * pointwise + 4 * (pointwise + refined) + 2 * 2 + 2 * 3
    self_teacher = enhancement + 2 * 32 + (32 * 8 + 8) + 5 * 8
    assert printed["training_only_params"] == {"head": 5 * 8, "self_teacher": self_teacher}


def test_the_table_has_a_row_for_each_network(tmp_path, monkeypatch, capsys):
    from wespeaker_lite.bin import cost

    nets = {"a": {"channels": 16, "embed_dim": 8}, "b": {"channels": 16, "embed_dim": 8}, "c": {"channels": 32}}
    for name, options in nets.items():
        given = {"model": {"name": "ecapa_tdnn", **options}, "features": {"num_mels": 40}}
        (tmp_path / f"{name}.yaml").write_text(json.dumps(given))
    paths = [str(tmp_path / f"{name}.yaml") for name in nets]
    monkeypatch.setattr(sys, "argv", ["cost", "--table", *paths, "--latency", "--repeats", "1"])
    cost.main()
    title, _, *rows = (line.split(" | ") for line in capsys.readouterr().out.splitlines())
    assert title[:3] == ["| conf", "parameters", "M MACs, 1 s"]
    assert len(title) == 8
    assert [row[0] for row in rows] == ["| a", "| c"]  # b is a's network
    network = models.build("ecapa_tdnn", {"channels": 32}, 40)
    assert rows[1][1] == f"{count_parameters(network):,}"
    assert rows[1][2] == f"{count_macs(network, 40) / 1e6:.1f}"
    assert title[3].startswith("1 s (")
    assert rows[0][3] == "1.00"
