"""The model that comes with the package."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.deploy.speaker_model import SpeakerModel, default_model


@pytest.fixture(scope="module")
def model() -> SpeakerModel:
    return SpeakerModel.load()


def test_it_is_small_and_judges_by_a_threshold(model: SpeakerModel) -> None:
    assert default_model().stat().st_size < 3e6
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    assert model.embed(noise, 16000).shape == (256,)
    assert next(iter(model.verification.thresholds)) == "trials_O_speechocean762"
    assert not model.features.snip_edges  # the front end of sherpa-onnx
    assert model.features.high_freq == -400.0


def test_the_onnx_file_in_its_folder_is_the_same_model(model: SpeakerModel) -> None:
    pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")
    path = default_model().with_suffix(".onnx")
    assert path.stat().st_size + default_model().stat().st_size < 3e6
    exported = SpeakerModel.load(path)
    assert exported.verification.thresholds == model.verification.thresholds
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    ours, theirs = model.embed(noise, 16000), exported.embed(noise, 16000)
    assert ours @ theirs > 0.995 * np.linalg.norm(ours) * np.linalg.norm(theirs)  # weights of 8 bits


def test_it_distinguishes_real_speakers_across_sessions(model: SpeakerModel, shared_data: Path) -> None:
    first = {}  # of each speaker, a recording of each of two sessions
    for speaker in sorted((shared_data / "pool/voxforge_test").iterdir()):
        sessions = [next(session.iterdir()) for session in sorted(speaker.iterdir())[:2]]
        if len(sessions) == 2:
            first[speaker.name] = [model.embed(path) for path in sessions]
    targets = [model.compare([one], other) for one, other in first.values()]
    nontargets = [model.compare([first[one][0]], first[other][1]) for one, other in combinations(first, 2)]
    assert len(first) > 8
    assert np.median(targets) > np.quantile(nontargets, 0.95)
    threshold = model.verification.thresholds["trials_O_voxforge_test"]
    assert np.mean(np.array(nontargets) >= threshold) < 0.2
