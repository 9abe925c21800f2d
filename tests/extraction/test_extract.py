"""Extraction: batching changes only the speed, and errors have clear messages."""

from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction import extract as module
from wespeaker_lite.extraction.extract import Batching, batches_of_like_length, extract
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import from_given

SMALL = {"channels": 16, "embed_dim": 8, "se_bottleneck": 8, "mfa_channels": 24, "attention_bottleneck": 8}
NETWORKS = {
    "ecapa_tdnn": {"name": "ecapa_tdnn", **SMALL},
    "resnet": {"name": "resnet", "depth": 18, "width": 4, "embed_dim": 8},
    "bc_cmt": {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 1], "strides": [1, 1], "embed_dim": 8},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 utterances of 20 to 150 frames."""
    folder = tmp_path_factory.mktemp("extraction")
    rng = np.random.default_rng(0)
    frames = {f"s-{number:02d}": int(rng.integers(20, 150)) for number in range(30)}
    with ArkWriter(folder / "feats") as writer:
        for utterance, count in frames.items():
            writer.write(utterance, rng.normal(5, 2, size=(count, 10)).astype(np.float32))
    write_table(folder / "utt2num_frames", frames)
    return folder


def make_model(folder: Path, network: str, **changes: object) -> Path:
    config = to_mapping(from_given({"model": NETWORKS[network], "features": {"num_mels": 10}, **changes}, "test"))
    torch.manual_seed(0)
    model = trained_model.build_model(config)
    with torch.no_grad():  # running statistics that are not 0 and 1, as after training
        model.train()(torch.randn(16, 60, 10))
    trained_model.save(folder / "final.pt", trained_model.TrainedModel(config, model, None, []))
    return folder / "final.pt"


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_batching_does_not_change_embeddings(data: Path, tmp_path: Path, network: str) -> None:
    model = make_model(tmp_path, network)
    extract(model, data, tmp_path / "one", Batching(frames=1))
    extract(model, data, tmp_path / "many", Batching(frames=2000, padding=0.9))
    one, many = (kaldiio.load_scp(str(tmp_path / f"{name}.scp")) for name in ("one", "many"))
    assert list(one) == [f"s-{number:02d}" for number in range(30)]
    for utterance in one:
        np.testing.assert_allclose(many[utterance], one[utterance], atol=1e-5)
    assert np.ptp([one[utterance] for utterance in one], axis=0).min() > 1e-3  # they do differ among each other


def test_an_embedding_is_computed_from_mean_subtracted_features(data: Path, tmp_path: Path) -> None:
    path = make_model(tmp_path, "ecapa_tdnn")
    extract(path, data, tmp_path / "xvector", Batching())
    feats = torch.from_numpy(kaldiio.load_scp(str(data / "feats.scp"))["s-07"].copy())
    with torch.no_grad():
        expected = trained_model.load(path).model((feats - feats.mean(0))[None])[0]
    ours = kaldiio.load_scp(str(tmp_path / "xvector.scp"))["s-07"]
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def test_long_recordings_are_embedded_by_parts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In equal parts of a minute at most (here of 0.5 s), each less its own mean, whatever the batches."""
    path = make_model(tmp_path, "bc_cmt")
    network = trained_model.load(path).model
    seen = []
    monkeypatch.setattr(module, "LONGEST", 0.5)
    plain = module.embed
    monkeypatch.setattr(module, "embed", lambda net, feats, device: seen.extend(map(len, feats)) or plain(net, feats))
    extract(path, data, tmp_path / "xvector", Batching(frames=200, padding=0.5))
    ours, feats = (kaldiio.load_scp(str(folder)) for folder in (tmp_path / "xvector.scp", data / "feats.scp"))
    assert max(seen) in (49, 50)
    assert sum(seen) == sum(map(len, feats.values()))
    with torch.no_grad():
        for utterance, whole in feats.items():
            count = -(-len(whole) // 50)
            ends = [len(whole) * number // count for number in range(1, count)]
            parts = [torch.from_numpy(part.copy()) for part in np.split(whole, ends)]
            expected = torch.stack([network((part - part.mean(0))[None])[0] for part in parts]).mean(0)
            np.testing.assert_allclose(ours[utterance], expected.numpy(), atol=2e-4)


def test_batches_hold_every_utterance_once_within_their_bounds() -> None:
    rng = np.random.default_rng(1)
    frames = {f"u{number}": int(rng.integers(50, 900)) for number in range(500)}
    batching = Batching(frames=4000, padding=0.1)
    batches = list(batches_of_like_length(frames, batching))
    assert sorted(utterance for batch in batches for utterance in batch) == sorted(frames)
    assert len(batches) < 120
    for batch in batches:
        longest = max(frames[utterance] for utterance in batch)
        assert len(batch) == 1 or len(batch) * longest <= 4000
        assert sum(frames[utterance] for utterance in batch) >= 0.9 * len(batch) * longest


def test_other_features_and_bad_weights_are_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", "resnet", features={"num_mels": 12})
    with pytest.raises(InputError, match=r"s-.*: 10 mel bins, but the model reads 12"):
        extract(other, data, tmp_path / "xvector", Batching())
    path = make_model(tmp_path, "ecapa_tdnn")
    trained = trained_model.load(path)
    with torch.no_grad():
        next(trained.model.parameters()).fill_(float("nan"))
    trained_model.save(path, trained)
    with pytest.raises(InputError, match=r"s-.*: its embedding is not finite"):
        extract(path, data, tmp_path / "xvector", Batching())
    assert not (tmp_path / "xvector.ark").exists()


def test_a_cut_or_foreign_model_is_named(data: Path, tmp_path: Path) -> None:
    path = make_model(tmp_path, "ecapa_tdnn")
    content = path.read_bytes()
    for name, wrong in (("cut", content[: len(content) // 2]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(InputError, match=f"{name}: cut or not a file of this program .*; remove it: .*stage 4 "):
            extract(tmp_path / name, data, tmp_path / "xvector", Batching())
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="foreign: not a trained model, it lacks classes, config, head, model"):
        extract(tmp_path / "foreign", data, tmp_path / "xvector", Batching())


def test_a_model_of_another_config_is_refused(data: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path, "ecapa_tdnn")
    config = trained_model.load(model).config
    resolved.write(tmp_path / "same.yaml", {**config, "runtime": {}, "scoring": {}})
    resolved.write(tmp_path / "other.yaml", {**config, "seed": 7, "crop": {**config["crop"], "frames": 300}})
    extract(model, data, tmp_path / "xvector", Batching(), config=str(tmp_path / "same.yaml"))
    with pytest.raises(InputError, match=r"final.pt was made with another config than .*other.yaml \(crop, seed\)"):
        extract(model, data, tmp_path / "xvector", Batching(), config=str(tmp_path / "other.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("s-03 ", "s-03 x", "utt2num_frames:4: 's-03' has 'x.*' frames; expected a number above 0"),
        ("s-03 ", "s-03b ", "feats.scp and utt2num_frames do not list the same utterances"),
    ],
)
def test_invalid_or_foreign_lengths_are_refused(data: Path, tmp_path: Path, old: str, new: str, fault: str) -> None:
    model = make_model(tmp_path, "ecapa_tdnn")
    (tmp_path / "feats.scp").write_text((data / "feats.scp").read_text())
    (tmp_path / "utt2num_frames").write_text((data / "utt2num_frames").read_text().replace(old, new))
    with pytest.raises(InputError, match=fault):
        extract(model, tmp_path, tmp_path / "xvector", Batching())
