"""Augmented copies of a set: noise, music, babble and reverberation in the waveform."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from tests.limits import small_files
from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.augmented_copies import (
    SNRS,
    TALKERS,
    Copier,
    Copy,
    mean_power,
    reverberated,
    simulated_response,
    write_clips,
    write_copy,
)
from wespeaker_lite.corpora.fbank_job import FbankJob, make_fbanks
from wespeaker_lite.data.mel_augmentation import ReverbConfig
from wespeaker_lite.kaldi.arks import read_array, read_scp
from wespeaker_lite.kaldi.tables import read_table, write_table

RATE = 16000
SECONDS = {"noise/bang": 0.5, "noise/wind": 3.0, "music/song": 6.0, "speech/a": 4.0, "speech/b": 0.7, "speech/c": 1.0}


def wave(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of clips in a folder like MUSAN."""
    folder = tmp_path_factory.mktemp("musan")
    files: dict[str, list[Path]] = {}
    for number, (name, seconds) in enumerate(SECONDS.items()):
        path = folder / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, wave(seconds, number), RATE, subtype="FLOAT")
        files.setdefault(path.parent.name, []).append(path)
    write_clips(folder / "list", files)
    return folder / "list"


def sounds(clips: Path) -> Mapping[str, np.ndarray]:
    return {name: wave(seconds, number) for number, (name, seconds) in enumerate(SECONDS.items())}


def added(clips: Path, kind: str, seconds: float = 2.0, key: str = "s-1", seed: int = 0) -> tuple:
    """The samples of an utterance, and the noise that a copy adds, in float64."""
    samples = wave(seconds, 99)
    copy = Copier(Copy(1.0, kind, seed, str(clips)), RATE)(key, samples)
    assert (copy.dtype, copy.shape) == (np.float32, samples.shape)
    return samples, copy.astype(np.float64) - samples


def decibels(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(mean_power(one) / mean_power(other))


def fits(clip: np.ndarray, heard: np.ndarray) -> float:
    """The scale of the clip, if `heard` is the scaled beginning of it."""
    part = clip[: len(heard)].astype(np.float64)
    factor = float(part @ heard[: len(part)] / (part @ part))
    np.testing.assert_allclose(heard[: len(part)], factor * part, rtol=0, atol=1e-7)
    return factor


def test_clips_are_listed_by_kind(clips: Path) -> None:
    assert read_table(clips / "utt2spk")["noise-bang.wav"] == "noise"
    assert read_table(clips / "utt2dur") == {
        f"{name.replace('/', '-')}.wav": f"{seconds:.3f}" for name, seconds in sorted(SECONDS.items())
    }
    assert read_table(clips / "spk2utt")["speech"] == "speech-a.wav speech-b.wav speech-c.wav"
    assert (clips / "audio.list").exists()


@pytest.mark.parametrize("key", ["s-1", "s-2", "s-3", "s-4"])
def test_noises_follow_each_other_each_at_its_own_snr(clips: Path, key: str) -> None:
    samples, heard = added(clips, "noise", 5.0, key)
    start, met = 0, 0
    while start < len(heard):
        scaled = {}
        for name, clip in sounds(clips).items():
            if name.startswith("noise") and np.corrcoef(clip[:2000], heard[start : start + 2000])[0, 1] > 0.99:
                factor = fits(clip, heard[start : start + len(clip)])
                scaled[name] = decibels(samples, factor * clip.astype(np.float64))
        ((name, snr),) = scaled.items()
        assert min(abs(snr - each) for each in SNRS["noise"]) < 1e-4
        start += round(SECONDS[name] * RATE)
        assert not heard[start : start + RATE].any()
        start += RATE
        met += 1
    assert met >= 2


def test_music_covers_the_whole_utterance(clips: Path) -> None:
    song = sounds(clips)["music/song"]
    found = set()
    for number in range(8):
        samples, heard = added(clips, "music", key=f"s-{number}")
        start = int(np.abs(scipy.signal.fftconvolve(song, heard[::-1], "valid")).argmax())
        fits(song[start:], heard)
        snr = decibels(samples, heard)
        assert min(abs(snr - each) for each in SNRS["music"]) < 1e-4
        found.add((start, round(snr)))
    assert len({start for start, _ in found}) > 4
    assert len({snr for _, snr in found}) > 1


def test_babble_has_several_talkers(clips: Path) -> None:
    _, heard = added(clips, "babble", seconds=0.5)
    counts = []
    for seed in range(12):
        copier = Copier(Copy(kind="babble", seed=seed, musan=str(clips)), RATE)
        talkers = []
        copier._excerpt = lambda size, rng, talkers=talkers: talkers.append(size) or np.eye(1, size, len(talkers))[0]
        heard = copier("s-1", np.ones(400, dtype=np.float32)).astype(np.float64) - 1
        ratios = [-10 * np.log10(heard[place] ** 2 / 400) for place in range(1, len(talkers) + 1)]
        assert all(min(abs(ratio - each) for each in SNRS["babble"]) < 1e-3 for ratio in ratios)
        counts.append(len(talkers))
    assert set(counts) <= set(TALKERS)
    assert len(set(counts)) > 2


def test_a_short_clip_is_repeated(clips: Path) -> None:
    _, heard = added(clips, "music", seconds=8.0)
    assert heard[: 2 * RATE].any()
    np.testing.assert_allclose(heard[6 * RATE :], heard[: 2 * RATE], rtol=0, atol=1e-7)


def test_reverberation_keeps_power_and_alignment(tmp_path: Path) -> None:
    samples = wave(1.0, 1)
    response = np.zeros(900, dtype=np.float32)
    response[[100, 500, 899]] = 0.8, 0.4, -0.3
    soundfile.write(tmp_path / "r.wav", response, RATE, subtype="FLOAT")
    write_clips(tmp_path / "rirs", {"room": [tmp_path / "r.wav"]})
    heard = Copier(Copy(kind="reverb", rirs=str(tmp_path / "rirs")), RATE)("s-1", samples)
    direct = samples.astype(np.float64)
    expected = 0.8 * direct
    expected[400:] += 0.4 * direct[:-400]
    expected[799:] += -0.3 * direct[:-799]
    expected *= np.sqrt(mean_power(samples) / mean_power(expected))
    np.testing.assert_allclose(heard, expected, rtol=0, atol=1e-6)
    assert mean_power(heard) == pytest.approx(mean_power(samples), rel=1e-6)
    assert not reverberated(np.zeros(100, dtype=np.float32), response).any()


def test_simulated_responses_have_the_requested_t60_and_direct_to_reverberant_ratio() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        t60, drr = rng.uniform(*ReverbConfig.t60), rng.uniform(*ReverbConfig.drr)
        tail = simulated_response(t60, drr, rng, RATE)
        tail[0] -= 1
        assert -10 * np.log10(np.sum(tail**2)) == pytest.approx(drr)
        parts = np.array([np.log10(np.mean(part**2)) for part in np.array_split(tail, 10)])
        slope = np.polyfit(np.arange(10) * len(tail) / 10 / RATE, 10 * parts, 1)[0]
        assert -60 / slope == pytest.approx(t60, rel=0.15)


@pytest.mark.parametrize("kind", ["noise", "music", "babble", "reverb"])
def test_random_draws_depend_only_on_seed_and_id(clips: Path, kind: str) -> None:
    samples = wave(2.0, 3)
    make = lambda key, seed=0: Copier(Copy(1.0, kind, seed, str(clips)), RATE)(key, samples)  # noqa: E731
    copier = Copier(Copy(1.0, kind, 0, str(clips)), RATE)
    one_by_one = [copier(key, samples) for key in ("b", "a", "c", "a")]
    np.testing.assert_array_equal(one_by_one[1], make("a"))
    np.testing.assert_array_equal(one_by_one[1], one_by_one[3])
    assert not np.array_equal(make("a"), make("b"))
    assert not np.array_equal(make("a"), make("a", 1))


def test_speed_is_changed_before_noise_is_added(clips: Path) -> None:
    copy = Copy(0.9, "noise", musan=str(clips))
    assert copy.utterance("s-1") == "sp0.9-s-1-noise"
    assert copy.speaker("s") == "sp0.9-s"
    assert len(Copier(copy, RATE)("k", wave(0.9, 1))) == RATE


def test_the_number_of_jobs_does_not_change_the_arks(clips: Path, tmp_path: Path) -> None:
    wavs = {}
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", wave(0.5, number), RATE)
        wavs[f"s-{number}"] = tmp_path / f"{number}.wav"
    copy = Copy(kind="babble", seed=3, musan=str(clips))
    write_table(tmp_path / "whole/wav.scp", wavs)
    make_fbanks(FbankJob(tmp_path / "whole", str(tmp_path / "whole/feats"), FbankConfig(), copy))
    whole = read_scp(tmp_path / "whole/feats.scp")
    assert list(whole) == [f"s-{number}-babble" for number in range(4)]
    for number, (key, path) in enumerate(wavs.items()):
        write_table(tmp_path / f"{number}/wav.scp", {key: path})
        make_fbanks(FbankJob(tmp_path / f"{number}", str(tmp_path / f"{number}/feats"), FbankConfig(), copy))
        ((name, location),) = read_scp(tmp_path / f"{number}/feats.scp").items()
        np.testing.assert_array_equal(read_array(name, location), read_array(name, whole[name]))


def test_missing_or_broken_clips_are_errors(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="copies with speech need clips of it: name MUSAN's folder by --musan-dir"):
        Copier(Copy(kind="babble"), RATE)
    soundfile.write(tmp_path / "good.wav", wave(0.5, 1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), RATE)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:5000])
    (tmp_path / "empty.wav").touch()
    write_clips(tmp_path / "list", {"noise": [tmp_path / "good.wav"]})
    with pytest.raises(InputError, match=r"list lists no music, only noise; copies need it"):
        Copier(Copy(kind="music", musan=str(tmp_path / "list")), RATE)
    for name, fault in (("cut", "cut: the header claims"), ("empty", "0 bytes"), ("none", "No such file")):
        with pytest.raises(InputError, match=rf"{name}.wav: .*{fault}"):
            write_clips(tmp_path / "list", {"noise": [tmp_path / "good.wav", tmp_path / f"{name}.wav"]})
    write_clips(tmp_path / "list", {"noise": [tmp_path / "silent.wav"]})
    with pytest.raises(InputError, match=r"silent.wav: silent: remove it"):
        Copier(Copy(kind="noise", musan=str(tmp_path / "list")), RATE)("k", wave(0.5, 1))


def test_a_noisy_test_set_keeps_its_ids_and_equals_the_copy(clips: Path, tmp_path: Path) -> None:
    samples = {"s-1": wave(1.0, 1) * 0.3, "s-2": wave(1.0, 2) * 9}
    for key, each in samples.items():
        soundfile.write(tmp_path / f"{key}.wav", each, RATE, subtype="FLOAT")
    write_table(tmp_path / "test/wav.scp", {key: tmp_path / f"{key}.wav" for key in samples})
    write_table(tmp_path / "test/utt2spk", {"s-1": "s", "s-2": "s"})
    copy = Copy(kind="noise", seed=4, musan=str(clips))
    write_copy(tmp_path / "test", tmp_path / "out", copy)
    assert read_table(tmp_path / "out/utt2spk") == {"s-1": "s", "s-2": "s"}
    for key, path in read_table(tmp_path / "out/wav.scp").items():
        expected = Copier(copy, RATE)(f"{key}-noise", samples[key])
        expected = expected / max(1, np.abs(expected).max())
        np.testing.assert_allclose(soundfile.read(path)[0], expected, rtol=0, atol=1e-4)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", wave(1.0, 1), RATE)
    write_table(tmp_path / "wav.scp", {"s-1": tmp_path / "a.wav"})
    write_table(tmp_path / "utt2spk", {"s-1": "s"})
    with small_files(10000), pytest.raises(OSError, match=f"File too large: '{tmp_path}/out/wav/s-1.flac'"):
        write_copy(tmp_path, tmp_path / "out", Copy(kind="reverb"))
    assert not list((tmp_path / "out/wav").iterdir())
