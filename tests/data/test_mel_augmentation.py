"""Noise and reverberation of crops, against naive loops in float64."""

import math
import pickle
from collections import Counter
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

from wespeaker_lite.audio.fbank import Acoustics
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.augmentation import SpecAugmentConfig, pick, uniforms
from wespeaker_lite.data.crops import Batch, CropConfig, CropDataset
from wespeaker_lite.data.mel_augmentation import (
    NAT,
    NOISE_KINDS,
    NoiseConfig,
    Reverb,
    ReverbConfig,
    SnrConfig,
    draw_snr,
    energies_of,
)
from wespeaker_lite.data.sampler import Request
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table

FRAMES, MELS = 40, 12
WEIGHTS = np.linspace(3, 0.2, MELS)
CLIPS = {"music-b": 300, "music-c": 41, "noise-a": 25, "noise-d": 90}


def write_feats(folder: Path, lengths: dict[str, int], seed: int) -> Path:
    """Write features with the range of speech: 12 nats between loud and quiet."""
    rng = np.random.default_rng(seed)
    with ArkWriter(folder / "feats") as writer:
        for key, frames in lengths.items():
            writer.write(key, 12 + 3 * rng.normal(size=(frames, 1)) + 1.5 * rng.normal(size=(frames, MELS)))
    write_table(folder / "utt2num_frames", lengths)
    write_table(folder / "utt2spk", {key: key.partition("-")[0] for key in lengths})
    return folder


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feats(tmp_path_factory.mktemp("speech"), {f"s{n}-{n}": 38 + 10 * n for n in range(10)}, 0)


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feats(tmp_path_factory.mktemp("noise"), CLIPS, 1)


def dataset(speech: Path, noises: Path | None, **options: object) -> CropDataset:
    config = CropConfig(**{"frames": FRAMES, "cmn": False, **options})
    return CropDataset(speech, config, 7, noises, Acoustics(0.01, WEIGHTS))


def get(data: CropDataset, numbers: range | list[int], epoch: int = 0) -> Batch:
    return data[Request(epoch, np.array(numbers))]


def noisy(probability: float = 1.0, **more: object) -> dict[str, NoiseConfig]:
    return {"noise": NoiseConfig(probability, ("noise", "music"), **more)}


BOTH = {**noisy(0.4), "reverb": ReverbConfig(0.3)}


def test_energies_are_approximate_and_their_logarithm_is_exact() -> None:
    raw = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    for low, step in ((-15.9, 0.17), (3.3, 0.07), (20.0, 0.001)):
        energies = energies_of(raw, torch.full((1, 1, 1), low), torch.full((1, 1, 1), step))
        logs = low + step * raw.double()
        error = energies.double().log() - logs
        assert error.min() > -1e-4
        assert error.max() < 0.0598  # 1 - (1 + log log 2) / log 2 bits
        back = energies.view(torch.int32).double() / NAT - 127 * math.log(2)
        torch.testing.assert_close(back, logs, rtol=0, atol=2e-5)


def clean_crops(speech: Path, batch: Batch) -> np.ndarray:
    """The crops without augmentation, in the order of the batch."""
    plain = get(dataset(speech, None), range(10))
    row = {index: number for number, index in enumerate(plain.indices.tolist())}
    return plain.feats[[row[index] for index in batch.indices.tolist()]].double().numpy()


def test_noise_is_mixed_by_power_at_the_drawn_snr(speech: Path, noises: Path) -> None:
    batch = get(dataset(speech, noises, **noisy()), range(10))
    draws = uniforms(7, 0, np.arange(10), 5)
    clips = kaldiio.load_scp(str(noises / "feats.scp"))
    errors = []
    for crop, clean, draw in zip(batch.feats.double().numpy(), clean_crops(speech, batch), draws, strict=True):
        name = sorted(CLIPS)[pick(draw[2], 4)]
        start = pick(draw[3], max(CLIPS[name] - FRAMES, 0) + 1)
        stretch = np.resize(clips[name][start:], (FRAMES, MELS)).astype(np.float64)
        low, high = (5, 15) if name.startswith("music") else (0, 15)
        snr = low + draw[4] * (high - low)
        gain = power(clean) / power(stretch) / 10 ** (snr / 10)
        errors.append(crop - np.log(np.exp(clean) + gain * np.exp(stretch)))
    assert np.abs(errors).max() < 0.08
    assert np.abs(errors).mean() < 0.015
    assert abs(np.mean(errors)) < 0.005


def power(logs: np.ndarray) -> float:
    return float(np.mean([sum(w * math.exp(x) for w, x in zip(WEIGHTS, row, strict=True)) for row in logs]))


@pytest.mark.parametrize("snr", [-5.0, 20.0])
def test_the_snr_is_the_requested_one(speech: Path, noises: Path, snr: float) -> None:
    config = SnrConfig((snr, snr), (snr, snr), (snr, snr))
    batch = get(dataset(speech, noises, **noisy(snr=config)), range(10))
    for crop, clean in zip(batch.feats.double().numpy(), clean_crops(speech, batch), strict=True):
        assert 10 * math.log10(power(clean) / (power(crop) - power(clean))) == pytest.approx(snr, abs=0.4 + (snr > 0))


def test_reverberation_is_a_decaying_tail_of_energies(speech: Path) -> None:
    batch = get(dataset(speech, None, reverb=ReverbConfig(1.0, (0.2, 0.9), (-3.0, 9.0))), range(10))
    draws = uniforms(7, 0, np.arange(10), 5)
    for crop, clean, draw in zip(batch.feats.double().numpy(), clean_crops(speech, batch), draws, strict=True):
        decay = 10 ** (-6 * 0.01 / (0.2 + draw[2] * 0.7))
        level = 10 ** (-(-3 + draw[3] * 12) / 10)
        tail, expected = np.zeros(MELS), []
        for row in np.exp(clean):
            tail = row * level * (1 - decay) + decay * tail
            expected.append(np.log(row + tail))
        assert np.abs(crop - expected).max() < 0.08
        assert np.abs(crop - expected).mean() < 0.025


def test_a_tail_has_the_requested_energy_and_decay() -> None:
    energies = torch.zeros(1, 200, 1)
    energies[0, 3] = 1.0
    decay = 10 ** (-6 * 0.01 / 0.5)
    room = Reverb(torch.full((1, 1, 1), decay), torch.full((1, 1, 1), 2.0), decay)
    heard = room.add_to(energies, slice(0, 1))[0, :, 0].double()
    assert heard[:3].abs().max() == 0
    assert heard.sum() == pytest.approx(3.0, rel=1e-3)
    assert 10 * math.log10(heard[5] / heard[30]) == pytest.approx(60 * 0.25 / 0.5, abs=0.01)


def test_silent_noise_adds_nothing(speech: Path, noises: Path, tmp_path: Path) -> None:
    with ArkWriter(tmp_path / "feats") as writer:
        silence = np.full((60, MELS), math.log(2.0**-23))
        silence[0, 0] += 1e-3
        writer.write("noise-silent", silence)
    write_table(tmp_path / "utt2num_frames", {"noise-silent": 60})
    write_table(tmp_path / "utt2spk", {"noise-silent": "noise"})
    batch = get(dataset(speech, tmp_path, noise=NoiseConfig(1.0, ("noise",))), range(10))
    np.testing.assert_allclose(batch.feats, clean_crops(speech, batch), rtol=0, atol=0.02)


@pytest.mark.parametrize("cmn", [False, True])
def test_an_augmented_crop_depends_only_on_its_number(speech: Path, noises: Path, cmn: bool) -> None:
    masks = SpecAugmentConfig(freq_masks=1, freq_width=4, time_masks=1, time_width=5)
    data = dataset(speech, noises, cmn=cmn, spec_augment=masks, **BOTH)
    numbers = list(range(150))
    together = get(data, numbers, epoch=2)
    alone = [get(data, [number], epoch=2) for number in numbers]
    order = sorted(numbers, key=lambda n: 0 if alone[n].reverb else 1 if alone[n].noise else 2)
    for row, number in enumerate(order):
        assert together.indices[row] == alone[number].indices[0] == number % 10
        assert torch.equal(together.feats[row], alone[number].feats[0])
    assert torch.equal(together.feats, get(data, numbers, epoch=2).feats)
    assert not torch.equal(together.feats, get(data, numbers, epoch=3).feats)


def test_the_requested_share_of_crops_is_augmented_and_the_others_are_unchanged(speech: Path, noises: Path) -> None:
    masks = {"spec_augment": SpecAugmentConfig(freq_masks=1, freq_width=4, time_masks=1, time_width=9)}
    batch = get(dataset(speech, noises, **masks, **BOTH), range(3000))
    reverberant, with_noise = len(batch.reverb.decay), len(batch.noise.raw)
    assert reverberant / 3000 == pytest.approx(0.3, abs=0.03)
    assert with_noise / 3000 == pytest.approx(0.4, abs=0.03)
    plain = get(dataset(speech, None, **masks), range(3000))
    key = lambda crop: crop.numpy().tobytes()  # noqa: E731
    clean = Counter(map(key, plain.feats))
    assert not Counter(map(key, batch.feats[reverberant + with_noise :])) - clean
    assert not clean.keys() & set(map(key, batch.feats[: reverberant + with_noise]))


def test_masked_cells_of_augmented_crops_have_the_mean_of_their_band(speech: Path, noises: Path) -> None:
    masks = {"spec_augment": SpecAugmentConfig(freq_masks=1, freq_width=4, time_masks=1, time_width=9)}
    masked = get(dataset(speech, noises, cmn=True, **masks, **BOTH), range(60)).feats
    assert (masked.abs() < 1e-4).float().mean() > 0.15
    whole = get(dataset(speech, noises, cmn=True, **noisy()), range(60)).feats
    torch.testing.assert_close(whole.mean(1), torch.zeros(60, MELS), rtol=0, atol=2e-4)


def test_an_augmented_batch_can_be_sent_between_processes(speech: Path, noises: Path) -> None:
    batch = get(dataset(speech, noises, **BOTH), range(40))
    for copy in (pickle.loads(pickle.dumps(batch)), batch.to("cpu")):
        assert torch.equal(copy.feats, batch.feats)


def test_every_kind_has_its_own_snr_range() -> None:
    kinds = np.repeat(np.arange(3), 1000)
    snr = draw_snr(uniforms(0, 0, np.arange(3000), 1)[:, 0], kinds, SnrConfig()).flatten().numpy()
    for number, (kind, low, high) in enumerate(zip(NOISE_KINDS, (0, 5, 5), (15, 15, 30), strict=True)):
        of_kind = snr[kinds == number]
        assert (of_kind.min(), of_kind.max()) == (pytest.approx(low, abs=0.2), pytest.approx(high, abs=0.2)), kind


def test_missing_noise_is_an_error(speech: Path, noises: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no features of noise are given; stage 2 makes them, with --musan-dir DIR"):
        dataset(speech, None, **noisy())
    with pytest.raises(InputError, match=r"there is no speech, only music, noise: set crop.noise.kinds"):
        dataset(speech, noises, noise=NoiseConfig(0.5))
    with ArkWriter(tmp_path / "feats") as writer:
        writer.write("noise-a", np.ones((50, MELS + 1)))
    write_table(tmp_path / "utt2num_frames", {"noise-a": 50})
    write_table(tmp_path / "utt2spk", {"noise-a": "noise"})
    with pytest.raises(InputError, match="noise has 13 mel bins, speech 12"):
        dataset(speech, tmp_path, **noisy())


@pytest.mark.parametrize(
    ("config", "options", "fault"),
    [
        (NoiseConfig, {"probability": 1.1}, "does not lie in"),
        (NoiseConfig, {"kinds": ()}, "kinds of noise"),
        (SnrConfig, {"music": (15.0, 5.0)}, r"snr.music: expected two numbers in ascending order, found \[15"),
        (SnrConfig, {"noise": (5.0,)}, "two numbers in ascending order"),
        (ReverbConfig, {"t60": (0.0, 1.0)}, "t60: 0.0 does not lie in"),
        (ReverbConfig, {"drr": (-60.0, 0.0)}, "drr: -60.0 does not lie in"),
        (ReverbConfig, {"probability": -0.1}, "does not lie in"),
        (CropConfig, {"noise": {"probability": 0.6}, "reverb": {"probability": 0.6}}, "add up to more than 1"),
    ],
)
def test_invalid_options_are_refused(config: type, options: dict, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        from_mapping(config, options, "here")
