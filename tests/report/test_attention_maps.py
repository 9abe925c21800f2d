"""Attention maps of teacher and students: their divergence, their picture, and the student without KD."""

import json
import logging
import math
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.arks import ArkWriter, read_array, read_scp
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe import resolved, stamps, trained_model
from wespeaker_lite.recipe.experiment import Experiment, from_given
from wespeaker_lite.recipe.trained_model import TrainedModel
from wespeaker_lite.report import plots
from wespeaker_lite.report.attention_maps import Excerpt, load_systems, row_divergence, write_attention
from wespeaker_lite.report.report import BootstrapOptions, write_report
from wespeaker_lite.report.without_kd import find_without_kd
from wespeaker_lite.scoring.results import summarise, write_results
from wespeaker_lite.scoring.scores import write_scores

LITTLE = {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 2], "strides": [1, 2], "reduction": [2, 1], "embed_dim": 8}
ECAPA = {"name": "ecapa_tdnn", "channels": 16, "embed_dim": 8, "mfa_channels": 24}
BAR = "weight (uniform: 1)"
EXCERPT = Excerpt(utterances=3, seconds=0.4)


def make_system(seed: int, model: dict[str, object] | None = None, **changes: object) -> TrainedModel:
    """An untrained network with attention sharp enough to differ from others."""
    given = {"model": {**(model or LITTLE), **changes}, "features": {"num_mels": 20}}
    config = to_mapping(from_given(given, "test"))
    torch.manual_seed(seed)
    network = trained_model.build_model(config).eval()
    for name, weight in network.named_parameters():
        if ".query." in name or ".key." in name:
            weight.data.mul_(20)
    return TrainedModel(config, network, None, [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five utterances. The second is shorter than the excerpt."""
    folder = tmp_path_factory.mktemp("attention")
    rng = np.random.default_rng(0)
    with ArkWriter(folder / "feats") as writer:
        for number, frames in enumerate((70, 31, 90, 50, 60)):
            writer.write(f"s-{number}", rng.normal(5, 2, size=(frames, 20)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def systems() -> dict[str, TrainedModel]:
    return {"base": make_system(0, channels=[16, 16], depth=[1, 1]), "plain": make_system(1), "kd": make_system(2)}


def naive_divergence(teacher: Tensor, student: Tensor) -> float:
    """KL of two arrays of scores (heads, rows, columns): softmax, mean over heads, a loop over all pairs."""
    maps = []
    for scores in (teacher, student):
        powers = np.exp(scores.numpy().astype(np.float64))
        maps.append((powers / powers.sum(-1, keepdims=True)).mean(0))
    total = 0.0
    for p, q in zip(maps[0].ravel(), maps[1].ravel(), strict=True):
        total += p * math.log(p / q)
    return total / len(maps[0])


def test_divergence_equals_a_naive_loop(data: Path, systems: dict[str, TrainedModel], tmp_path: Path) -> None:
    figures = write_attention(systems, data, tmp_path / "maps.png", EXCERPT)
    assert figures == json.loads((tmp_path / "maps.json").read_text())
    places = read_scp(data / "feats.scp")
    expected = np.zeros((3, 2))
    for utterance in ("s-0", "s-1", "s-2"):
        feats = torch.from_numpy(read_array(utterance, places[utterance]))
        crop = (feats - feats.mean(0))[None, :40]
        with torch.no_grad():
            scores = [
                [stage[-1].scores()[0] for stage in each.model.activations(crop).attention] for each in systems.values()
            ]
        scores.append([torch.zeros_like(stage) for stage in scores[0]])
        for student in (0, 1, 2):
            for stage in (0, 1):
                expected[student, stage] += naive_divergence(scores[0][stage], scores[student + 1][stage]) / 3
    np.testing.assert_allclose([figures["kl"]["plain"], figures["kl"]["kd"], figures["flat"]], expected, rtol=1e-5)
    assert expected.min() > 0.01
    entropy = np.zeros(2)
    for utterance in ("s-0", "s-1", "s-2"):
        feats = torch.from_numpy(read_array(utterance, places[utterance]))
        with torch.no_grad():
            shown = systems["kd"].model.activations((feats - feats.mean(0))[None, :40])
        for stage, blocks in enumerate(shown.attention):
            p = blocks[-1].scores()[0].double().softmax(-1).numpy()
            entropy[stage] -= (p * np.log(p)).sum(-1).mean() / 3
    np.testing.assert_allclose(figures["entropy"]["kd"], entropy, rtol=1e-5)
    frames = (20, 16, 20)  # after the stride, of 40, 31 and 40
    np.testing.assert_allclose(figures["flat_entropy"], [np.log(frames).mean()] * 2)
    assert list(figures["entropy"]) == ["base", "plain", "kd"]
    assert (figures["teacher"], figures["utterances"], figures["utterance"]) == ("base", 3, "s-0")
    assert list(figures["kl"]) == ["plain", "kd"]


def test_a_copy_of_the_teacher_has_divergence_0(data: Path, systems: dict[str, TrainedModel], tmp_path: Path) -> None:
    figures = write_attention({"a": systems["kd"], "b": systems["kd"]}, data, tmp_path / "maps.png", EXCERPT)
    assert figures["kl"]["b"] == pytest.approx([0, 0], abs=1e-12)


def test_divergence_of_maps_with_zeros_is_finite() -> None:
    teacher, student = torch.eye(3).double(), torch.eye(3).double().roll(1, 0)
    assert row_divergence(teacher, teacher) == pytest.approx(0, abs=1e-12)
    assert row_divergence(teacher, student) > 100
    assert math.isfinite(row_divergence(teacher, student))


def test_the_picture_is_drawn(data: Path, systems: dict[str, TrainedModel], tmp_path: Path) -> None:
    assert write_attention(systems, data, tmp_path / "maps.png", EXCERPT)["picture"] == "maps.png"
    picture = imread(tmp_path / "maps.png")[..., :3]
    height, width, _ = picture.shape
    assert height > width  # three systems, two stages
    coloured = np.ptp(picture, axis=2) > 0.1
    for rows in np.array_split(coloured[: int(0.8 * height)], 3):
        for panel in np.array_split(rows[:, int(0.1 * width) :], 2, axis=1):
            assert panel.mean() > 0.5
    assert coloured.mean() < 0.95


def test_panels_show_multiples_of_a_uniform_map_in_one_range_per_stage() -> None:
    rng = np.random.default_rng(0)
    maps = {name: [rng.dirichlet(np.full(9, share), 9) for share in (1, 5)] for name in ("base", "plain", "kd")}
    panels = np.reshape([axes for axes in plots._attention_figure(maps, 1.8).axes if axes.get_xlabel() != BAR], (3, 2))
    for row, (name, stages) in zip(panels, maps.items(), strict=True):
        assert row[0].get_ylabel() == f"{name}\nquery (s)"
        for axes, expected in zip(row, stages, strict=True):
            image = axes.images[0]
            np.testing.assert_allclose(image.get_array(), 9 * expected)
            assert (*image.get_extent(), image.origin) == (0, 1.8, 0, 1.8, "lower")
    for column in panels.T:
        assert len({axes.images[0].get_clim() for axes in column}) == 1
    assert panels[0, 0].images[0].get_clim() != panels[0, 1].images[0].get_clim()


def make_results(experiment: Path) -> None:
    trials, scores = Trials(["a-0", "a-0"], ["a-1", "b-1"], np.array([True, False])), np.array([1.0, 0.0])
    write_scores(experiment / "scores" / "few.cosine.score", trials, scores)
    write_results(experiment / "results.json", {"trials": {"few": {"cosine": summarise(trials, scores, "few")}}})


def test_report_shows_figures_and_picture(data: Path, systems: dict[str, TrainedModel], tmp_path: Path) -> None:
    make_results(tmp_path)
    figures = write_attention(systems, data, tmp_path / "report" / "maps.png", EXCERPT)
    text = write_report(tmp_path, BootstrapOptions(), tmp_path / "report" / "maps.json")
    assert "KL(base || student)" in text
    assert "first 3 test utterances, at most 0.4 s of each" in text
    for name, values in (("kd", figures["kl"]["kd"]), ("(uniform)", figures["flat"])):
        row = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
        assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{value:.3g}" for value in values]
    rows = text.partition("Mean entropy of a row")[2].splitlines()
    row = next(line for line in rows if line.startswith("| base"))
    assert [cell.strip() for cell in row.split("|")[2:4]] == [f"{value:.3g}" for value in figures["entropy"]["base"]]
    assert "![Attention maps](maps.png)" in text
    assert "Attention" not in write_report(tmp_path, BootstrapOptions())


def test_without_matplotlib_there_are_figures_but_no_picture(
    data: Path,
    systems: dict[str, TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    figures = write_attention(systems, data, tmp_path / "report" / "maps.png", EXCERPT)
    assert "tools/install.sh --extras plots" in caplog.text
    assert figures["picture"] is None
    assert min(figures["kl"]["kd"]) > 0
    assert not (tmp_path / "report" / "maps.png").exists()
    make_results(tmp_path)
    text = write_report(tmp_path, BootstrapOptions(), tmp_path / "report" / "maps.json")
    assert "| kd" in text
    assert "![" not in text


@pytest.mark.parametrize("reduction", [[2, 1], [1, 1]])
def test_attention_over_frequency_and_time_is_measured_but_not_drawn(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, reduction: list[int]
) -> None:
    teacher, student = (make_system(seed, attention="2d", reduction=reduction) for seed in (0, 1))
    with caplog.at_level(logging.WARNING):
        figures = write_attention({"base": teacher, "kd": student}, data, tmp_path / "maps.png", EXCERPT)
    assert figures["picture"] is None
    assert min(figures["kl"]["kd"]) > 0
    assert "the attention of base is not only over time" in caplog.text


def test_networks_that_cannot_be_compared_are_refused(
    data: Path, systems: dict[str, TrainedModel], tmp_path: Path
) -> None:
    for name, other, fault in (
        ("ecapa", make_system(0, ECAPA), r"ecapa: its network \(ecapa_tdnn\) has no self-attention"),
        ("slow", make_system(0, stem_stride=[2, 4]), r"base and slow: .* \[\(20, 20\), .* \[\(10, 10\), "),
        ("deep", make_system(0, channels=[8, 8, 8], depth=[1, 1, 1], strides=[1, 2, 1], reduction=[1, 1, 1]), "deep"),
    ):
        with pytest.raises(InputError, match=fault):
            write_attention({"base": systems["base"], name: other}, data, tmp_path / "maps.png", EXCERPT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("texts", [["a=x"], ["a=x", "a=y"], ["a=x", "b"], ["a=x", "=y"]])
def test_bad_systems_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"expected NAME=final\.pt"):
        load_systems(texts)


def test_systems_are_loaded_in_order(systems: dict[str, TrainedModel], tmp_path: Path) -> None:
    for name, trained in systems.items():
        trained_model.save(tmp_path / f"{name}.pt", trained)
    loaded = load_systems([f"{name}={tmp_path}/{name}.pt" for name in ("kd", "base")])
    assert list(loaded) == ["kd", "base"]
    assert loaded["base"].config == systems["base"].config


@pytest.mark.parametrize("bad", [{"utterances": 0}, {"seconds": 0.0}, {"seconds": float("nan")}])
def test_an_empty_excerpt_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="more than 0"):
        Excerpt(**bad)


# --- The student without KD ---

KD = {"teacher": "conf/base.yaml", "terms": [{"name": "attention", "weight": 1.0}]}
SECTIONS = tuple(part.name for part in fields(Experiment) if part.name not in ("runtime", "scoring"))


def make_experiment(folder: Path, trained: bool = True, **changes: object) -> Path:
    given = {"model": LITTLE, "features": {"num_mels": 20}, **changes}
    resolved.write(folder / "config.yaml", to_mapping(from_given(given, "test")))
    if trained:
        (folder / "final.pt").write_text("weights")
        stamps.write(
            folder / ".train.stamp",
            stamps.Inputs(config=str(folder / "config.yaml"), sections=SECTIONS),
            [str(folder / "final.pt")],
        )
    return folder


def test_the_student_without_kd_differs_only_in_kd(tmp_path: Path) -> None:
    student = make_experiment(tmp_path / "m_kd", distill=KD)
    make_experiment(tmp_path / "a_other_kd", distill={**KD, "terms": [{"name": "label"}]})
    make_experiment(tmp_path / "b_seed", seed=1)
    make_experiment(tmp_path / "c_features", features={"num_mels": 20, "low_freq": 50.0})
    make_experiment(tmp_path / "d_augment", augment={"speeds": [0.9]})
    make_experiment(tmp_path / "e_crop", crop={"frames": 99})
    make_experiment(tmp_path / "f_model", model={**LITTLE, "embed_dim": 9})
    make_experiment(tmp_path / "g_head", head={"margin": 0.3})
    make_experiment(tmp_path / "h_train", train={"epochs": 3})
    make_experiment(tmp_path / "i_untrained", trained=False)
    make_experiment(tmp_path / "j_gone").joinpath("final.pt").unlink()
    assert find_without_kd(student) is None
    make_experiment(tmp_path / "z_plain", scoring={"top_n": 7}, runtime={"threads": 1})
    assert find_without_kd(student) == tmp_path / "z_plain"
    seeded = make_experiment(tmp_path / "m_kd_s1", distill=KD, seed=1)
    assert find_without_kd(seeded) == tmp_path / "b_seed"
    assert find_without_kd(tmp_path / "z_plain") is None


def test_a_student_whose_config_was_changed_after_training_does_not_count(tmp_path: Path) -> None:
    student = make_experiment(tmp_path / "kd", distill=KD)
    plain = make_experiment(tmp_path / "plain", train={"epochs": 3})
    make_experiment(plain, trained=False)
    assert find_without_kd(student) is None
    make_experiment(plain)
    assert find_without_kd(student) == plain
    (plain / ".train.stamp").write_text("cut")
    assert find_without_kd(student) is None
