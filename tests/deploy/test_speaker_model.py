"""A trained model in use: the embeddings of stage 5, for any audio, and one line for what is none."""

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from tests.deploy.models import make_model
from wespeaker_lite import SpeakerModel
from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.fbank_job import FbankJob, make_fbanks
from wespeaker_lite.deploy import front_end, speaker_model
from wespeaker_lite.extraction.extract import Batching, extract
from wespeaker_lite.kaldi.arks import read_array, read_scp
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.recipe import trained_model

RATE = 16000


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * rng.uniform(100, 3000) * time) for _ in range(5))
    return (0.05 * tones * (1 + np.sin(9 * time)) + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "final.pt")


@pytest.fixture(scope="module")
def model(path: Path) -> SpeakerModel:
    return SpeakerModel.load(path)


def test_an_embedding_equals_that_of_stage_5(tmp_path: Path, path: Path, model: SpeakerModel) -> None:
    for key, seconds in (("a", 0.3), ("b", 2.0), ("c", 5.3)):
        soundfile.write(tmp_path / f"{key}.flac", sound(seconds, len(key)), RATE)
    soundfile.write(tmp_path / "d.wav", np.stack([sound(1.0, 4, 44100), sound(1.0, 5, 44100)], 1), 44100)
    files = {key: tmp_path / name for key, name in zip("abcd", ("a.flac", "b.flac", "c.flac", "d.wav"), strict=True)}
    write_table(tmp_path / "wav.scp", files)
    make_fbanks(FbankJob(tmp_path, str(tmp_path / "feats"), FbankConfig(num_mels=40)))
    (tmp_path / "feats.utt2num_frames").rename(tmp_path / "utt2num_frames")
    extract(path, tmp_path, tmp_path / "xvector", Batching(frames=1))
    for key, place in read_scp(tmp_path / "xvector.scp").items():
        np.testing.assert_allclose(model.embed(files[key]), read_array(key, place), rtol=0, atol=1e-5)


def test_samples_give_the_same_embedding_as_their_file(tmp_path: Path, model: SpeakerModel) -> None:
    stereo = np.stack([sound(1.0, 1, 8000), sound(1.0, 2, 8000)], axis=1)
    soundfile.write(tmp_path / "x.wav", stereo, 8000, subtype="PCM_16")
    integers, _ = soundfile.read(tmp_path / "x.wav", dtype="int16")
    np.testing.assert_allclose(model.embed(integers, 8000), model.embed(tmp_path / "x.wav"), atol=1e-5)
    assert cosine(model.embed(resample_poly(sound(2.0), 3, 1), 48000), model.embed(sound(2.0), RATE)) > 0.99


def test_long_recordings_are_read_in_parts_and_averaged(
    tmp_path: Path, model: SpeakerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_model, "LONGEST", 2.0)
    longest = 0

    def fbank(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
        nonlocal longest
        longest = max(longest, len(samples))
        return original(samples, config)

    original = front_end.fbank
    monkeypatch.setattr(front_end, "fbank", fbank)
    samples = np.concatenate([sound(2.0, 1), np.zeros(2 * RATE, np.float32), sound(2.0, 2)])
    soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
    wanted = (model.embed(sound(2.0, 1), RATE) + model.embed(sound(2.0, 2), RATE)) / 2  # silence is left out
    np.testing.assert_allclose(model.embed(tmp_path / "x.wav"), wanted, atol=1e-5)
    np.testing.assert_allclose(model.embed(samples, RATE), wanted, atol=1e-5)
    assert longest == 2 * RATE


def test_scores_are_cosines_after_mean_subtraction_and_enrolment_is_averaged(tmp_path: Path) -> None:
    plain = SpeakerModel.load(make_model(tmp_path / "final.pt"))
    a, b, c = (plain.embed(sound(1.0, seed), RATE).astype(float) for seed in range(3))
    assert plain.score(sound(1.0, 0), sound(1.0, 1), RATE) == pytest.approx(cosine(a, b), abs=1e-6)
    mean = (a + b + c) / 4
    record = {"mean": mean.tolist(), "thresholds": {"O": 0.5}, "cosine_linear": None}
    (tmp_path / "verify.json").write_text(json.dumps(record))
    centred = SpeakerModel.load(tmp_path / "final.pt")
    a, b, c = (vector - mean for vector in (a, b, c))
    wanted = cosine(a / np.linalg.norm(a) + b / np.linalg.norm(b), c)
    assert centred.score([sound(1.0, 0), sound(1.0, 1)], sound(1.0, 2), RATE) == pytest.approx(wanted, abs=1e-5)


def test_the_thresholds_of_another_model_are_refused(tmp_path: Path, path: Path) -> None:
    model = make_model(tmp_path / "final.pt")
    digest = trained_model.digest(trained_model.load(model).model)
    record = {"mean": None, "thresholds": {"O": 0.5}, "cosine_linear": None}
    for weights in (
        {},
        {"weights": ""},
        {"weights": digest},
    ):  # an older file, a scoring without a model, and a complete file
        (tmp_path / "verify.json").write_text(json.dumps(record | weights))
        assert SpeakerModel.load(model).verification.thresholds == {"O": 0.5}
    trained = trained_model.load(model)
    next(trained.model.parameters()).data[0] += 1e-6
    trained_model.save(model, trained)
    with pytest.raises(InputError, match=r"final\.pt: the verify\.json beside it is of another model") as caught:
        SpeakerModel.load(model)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("samples", "rate", "fault"),
    [
        (sound(0.2), RATE, "too short: 0.20 s"),
        (np.zeros(RATE), RATE, "silent"),
        (np.full(RATE, np.nan), RATE, "not finite"),
        (sound(1.0), None, "sample_rate"),
        (sound(1.0)[None], RATE, "shape"),
        (np.zeros(RATE, np.uint8), RATE, "uint8"),
    ],
)
def test_samples_without_speech_get_one_line(
    model: SpeakerModel, samples: np.ndarray, rate: int | None, fault: str
) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        model.embed(samples, rate)
    assert len(str(caught.value).splitlines()) == 1


def test_files_without_speech_get_one_line(tmp_path: Path, model: SpeakerModel) -> None:
    soundfile.write(tmp_path / "short.wav", sound(0.1), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "text.wav").write_text("no audio")
    faults = {"short": "too short", "silent": "silent", "text": "cannot be decoded", "none": "No such file"}
    for name, fault in faults.items():
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name)) + ".*" + fault):
            model.embed(tmp_path / f"{name}.wav")
    with pytest.raises(InputError, match="a command, not a path"):
        model.embed(f"touch {tmp_path}/ran |")
    assert not (tmp_path / "ran").exists()


def test_without_a_name_the_shipped_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker_model, "DEFAULT_MODEL", "none.pt")
    with pytest.raises(InputError, match=r"no model is given, and .*pretrained/none.pt does not exist"):
        SpeakerModel.load()
    monkeypatch.setattr(speaker_model, "__file__", str(tmp_path / "wespeaker_lite/deploy/speaker_model.py"))
    (tmp_path / "wespeaker_lite/weights").mkdir(parents=True)
    make_model(tmp_path / "wespeaker_lite/weights/none.pt")
    assert SpeakerModel.load().embed(sound(1.0), RATE).shape == (8,)


def test_the_package_that_pip_installs_is_complete(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    packages = {path.parent.relative_to(repository) for path in repository.glob("wespeaker_lite/**/__init__.py")}
    named = set(project["tool"]["setuptools"]["packages"])
    assert named == {".".join(folder.parts) for folder in packages} | {"wespeaker_lite.weights"}
    assert (repository / project["tool"]["setuptools"]["package-dir"]["wespeaker_lite.weights"]).is_dir()
