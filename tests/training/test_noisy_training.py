"""Training on crops with noise and reverberation: a stopped run resumes bit for bit."""

import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data import resident
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.data.mel_augmentation import Tensors
from wespeaker_lite.data.sampler import Request
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.job import Job, train
from wespeaker_lite.training.trainer import Trainer

CROP = {"noise": {"probability": 0.5, "kinds": ["noise"]}, "reverb": {"probability": 0.3}}


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of noise, 10 mels."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    with ArkWriter(folder / "feats") as writer:
        for number in range(3):
            writer.write(f"noise-{number}", rng.normal(size=(50, 10)))
    write_table(folder / "utt2spk", {f"noise-{number}": "noise" for number in range(3)})
    write_table(folder / "utt2num_frames", {f"noise-{number}": 50 for number in range(3)})
    return folder


class Stopped(Exception):
    pass


def trained(experiment: Experiment, data: Path, noise: Path | str, out: Path) -> dict[str, torch.Tensor]:
    resolved.write(out / "config.yaml", to_mapping(experiment))
    train(Job(out / "config.yaml", data, out, noise=str(noise)))
    return trained_model.load(out / "final.pt").model.state_dict()


def test_a_stopped_run_resumes_bit_for_bit(
    small: Callable[..., Experiment], small_data: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    experiment = small(crop=CROP)
    whole = trained(experiment, small_data, noise, tmp_path / "whole")
    step, stopped = Trainer._step, []

    def stopping(self: Trainer, batch: object) -> object:
        if (self.epoch, self.batch) == (1, 3) and not stopped:
            stopped.append(True)
            raise Stopped
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(Stopped):
        trained(experiment, small_data, noise, tmp_path / "parts")
    with caplog.at_level(logging.INFO):
        parts = trained(small(crop=CROP, runtime={"workers": 1}), small_data, noise, tmp_path / "parts")
    assert "resuming after epoch 1, batch 2" in caplog.text
    plain = trained(small(), small_data, "", tmp_path / "plain")
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    assert not torch.equal(whole["embedding.weight"], plain["embedding.weight"])


def assert_alike(ours: object, theirs: object) -> None:
    if isinstance(ours, Tensors):
        for entry in fields(ours):
            assert_alike(getattr(ours, entry.name), getattr(theirs, entry.name))
    else:
        assert torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs


@pytest.mark.parametrize("frames", [40, 60, 130])
def test_crops_that_are_cut_on_a_device_are_the_same_bit_for_bit(
    small: Callable[..., Experiment], small_data: Path, noise: Path, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of utterances of 60 frames and noise of 50; copied in several pieces."""
    monkeypatch.setattr(resident, "_AT_ONCE", 2000)
    masks = {"freq_masks": 1, "time_masks": 1}
    config = small(crop={**CROP, "frames": frames, "spec_augment": masks}).crop
    mapped, cut = (CropDataset(small_data, config, 3, noise) for _ in range(2))
    assert cut.num_bytes == 40 * 60 * 10 + 3 * 50 * 10
    cut.make_resident(torch.device("cpu"))
    for epoch in range(3):
        request = Request(epoch, np.random.default_rng(epoch).integers(200, size=24))
        assert_alike(cut[request], mapped[request])
        assert torch.equal(cut[request].feats, mapped[request].feats)


def test_training_on_crops_cut_on_a_device_gives_the_same_weights(
    small: Callable[..., Experiment], small_data: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small(crop=CROP, runtime={"workers": 1})
    mapped = trained(experiment, small_data, noise, tmp_path / "mapped")
    init = CropDataset.__init__

    def resident_from_the_start(self: CropDataset, directory: Path, *rest: object, **options: object) -> None:
        init(self, directory, *rest, **options)
        self.make_resident(torch.device("cpu"))

    monkeypatch.setattr(CropDataset, "__init__", resident_from_the_start)
    cut = trained(experiment, small_data, noise, tmp_path / "cut")
    assert all(torch.equal(value, cut[name]) for name, value in mapped.items())


def test_noise_in_the_config_needs_a_folder(small: Callable[..., Experiment], small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no features of noise are given"):
        trained(small(crop=CROP), small_data, "", tmp_path)
