"""Error rates of exported files: trials scored by the embeddings of each, as `SpeakerModel.score` does it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.deploy.models import make_model
from wespeaker_lite import SpeakerModel
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.simulation import SAMPLE_RATE, make_session, make_speaker, simulate_utterance
from wespeaker_lite.deploy.error_rates import EvaluationSet, error_rates
from wespeaker_lite.kaldi.trials import read_trials
from wespeaker_lite.scoring.results import summarise

SPEAKERS, EACH = 5, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with audio of some speakers, all pairs as trials, a final.pt, another model, and a verify.json."""
    folder = tmp_path_factory.mktemp("test_set")
    rng = np.random.default_rng(0)
    names = []
    for speaker in range(SPEAKERS):
        voice = make_speaker(1, speaker)
        for number in range(EACH):
            name = f"s{speaker}-{number}"
            soundfile.write(folder / f"{name}.wav", simulate_utterance(voice, make_session(rng), rng), SAMPLE_RATE)
            names.append(name)
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name in names))
    pairs = [(one, two) for one in names for two in names if one < two]
    labels = {True: "target", False: "nontarget"}
    (folder / "trials").write_text("".join(f"{one} {two} {labels[one[:2] == two[:2]]}\n" for one, two in pairs))
    (folder / "few").write_text("".join((folder / "trials").read_text().splitlines(True)[:5]))  # six utterances
    make_model(folder / "final.pt")
    record = {"mean": [0.1] * 8, "thresholds": {}, "cosine_linear": None}
    (folder / "verify.json").write_text(json.dumps(record))
    return folder


def test_each_model_gets_the_rate_of_its_own_scores(folder: Path) -> None:
    model = SpeakerModel.load(folder / "final.pt")

    class Other(SpeakerModel):
        def embed(self, audio: np.ndarray, sample_rate: int | None = None) -> np.ndarray:
            return super().embed(audio, sample_rate) * np.geomspace(1, 100, 8, dtype=np.float32)

    models = {"exact": model, "other": Other.load(folder / "final.pt")}
    found = error_rates(models, EvaluationSet(folder, [folder / "trials"]))
    trials = read_trials(folder / "trials")
    wanted = {}
    for name, of in models.items():
        pairs = zip(trials.enroll, trials.test, strict=True)
        scores = [of.score(*(soundfile.read(folder / f"{key}.wav")[0] for key in pair), SAMPLE_RATE) for pair in pairs]
        wanted[name] = summarise(trials, np.array(scores), "naive")["eer"]
    assert found == {"trials": pytest.approx(wanted, abs=1e-6)}
    assert 0 < wanted["exact"] != wanted["other"]


def test_long_lists_are_left_out_and_unknown_utterances_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = {"exact": SpeakerModel.load(folder / "final.pt")}
    lists = [folder / "trials", folder / "few"]
    caplog.set_level("INFO")
    assert list(error_rates(models, EvaluationSet(folder, lists, most=6))) == ["few"]
    assert f"trials: {SPEAKERS * EACH} utterances, too many" in caplog.text
    (folder / "strange").write_text("s0-0 s9-9 nontarget\n")
    with pytest.raises(InputError, match="strange:1: utterance 's9-9' is not in the data"):
        error_rates(models, EvaluationSet(folder, [folder / "strange"]))


def test_the_card_has_the_rates_of_the_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")
    from wespeaker_lite.deploy import export as exporting

    exporting.export(
        folder / "final.pt", folder, folder / "export", exporting.About(), EvaluationSet(folder, [folder / "trials"])
    )
    title, _, row = (
        (folder / "export/card.md")
        .read_text()
        .split("model.onnx equals final.pt up to rounding:\n\n")[1]
        .split("\n")[:3]
    )
    files = [cell.strip() for cell in title.strip("| ").split("|")]
    assert files == ["trials", "final.pt", "model.fp16.onnx", "model.w8.onnx", "model_wave.onnx"]
    name, *rates = [cell.strip() for cell in row.strip("| ").split("|")]
    whole = error_rates(
        {"final.pt": SpeakerModel.load(folder / "final.pt")}, EvaluationSet(folder, [folder / "trials"])
    )
    assert (name, rates[0]) == ("trials", f"{100 * whole['trials']['final.pt']:.2f}")
    assert all(0 <= float(rate) <= 100 for rate in rates)
