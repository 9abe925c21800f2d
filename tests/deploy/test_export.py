"""Exported files: the embeddings of the model in onnxruntime and in sherpa-onnx, for every network of conf/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.deploy.models import make_model, with_statistics
from wespeaker_lite import SpeakerModel, models
from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.front_end import SHERPA, FrontEnd
from wespeaker_lite.recipe import experiment, trained_model

onnx = pytest.importorskip("onnx", reason="needs tools/install.sh --extras export")
ort = pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")
sherpa_onnx = pytest.importorskip("sherpa_onnx", reason="needs tools/install.sh --extras export")

from wespeaker_lite.deploy import export as exporting  # noqa: E402
from wespeaker_lite.deploy import graphs  # noqa: E402
from wespeaker_lite.deploy.export import About, export, simulated_speech  # noqa: E402
from wespeaker_lite.deploy.onnx_model import OnnxNetwork, cosines  # noqa: E402

ROOT = Path(__file__).parents[2]
LENGTHS = ((1, 30), (1, 100), (3, 200), (1, 33), (1, 1), (1, 500), (2, 1000), (1, 2000))  # of batches, and frames
# What makes a conf's network small, layers and kinds of layers kept.
SMALL = {
    "bc_cmt": {"channels": [8, 8, 8, 16], "stem_channels": 8, "embed_dim": 12, "pool_bottleneck": 8},
    "ecapa_tdnn": {"channels": 16, "mfa_channels": 24, "embed_dim": 12, "se_bottleneck": 8, "attention_bottleneck": 8},
    "resnet": {"width": 4, "embed_dim": 12},
    "campplus": {"channels": 8, "growth": 4, "head_channels": 8, "embed_dim": 12},
    "xvector": {"channels": 16, "pooling_channels": 24, "embed_dim": 12},
    "next_tdnn": {"channels": 8, "embed_dim": 12},
    "redimnet": {"channels": 4, "embed_dim": 12, "attention_bottleneck": 8},
}


def networks() -> dict[str, dict[str, Any]]:
    """Each network that a conf names, made small, once."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((ROOT / "conf").glob("*.yaml")):
        config = experiment.load(path)
        name = config.model["name"]
        assert name in SMALL, f"add what makes {name} small (the network of {path}) to SMALL"
        options = dict(config.model) | SMALL[name] | {"num_mels": config.features.num_mels}
        if options not in found.values():
            found[path.stem] = options
    for scores in ("scaled", "cosine"):
        found[f"bc_cmt_{scores}"] = found["bc_cmt_tiny"] | {"scores": scores}
    found["bc_cmt_2d_cosine"] = found["bc_cmt_tiny_2d"] | {"scores": "cosine"}
    return found


NETWORKS = networks()


def session(model: "onnx.ModelProto", threads: int = 1) -> "ort.InferenceSession":
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def small_network(options: Mapping[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    options = dict(options)
    num_mels = options.pop("num_mels", 80)
    return with_statistics(models.build(options["name"], options, num_mels), num_mels)


@pytest.mark.parametrize("conf", NETWORKS)
@torch.inference_mode()
def test_a_graph_equals_the_network_at_any_length(conf: str) -> None:
    network, num_mels = small_network(NETWORKS[conf]), NETWORKS[conf]["num_mels"]
    graph = graphs.of_feats(NETWORKS[conf]["name"], network, num_mels, {})
    run = session(graph)
    assert [axis for value in run.get_inputs() for axis in value.shape] == ["B", "T", num_mels]
    exact = network.double()
    # Attention over the whole map takes half a minute for the longer ones.
    for batch, frames in LENGTHS[:5] if NETWORKS[conf].get("attention") == "2d" else LENGTHS:
        feats = 3 * torch.randn(batch, frames, num_mels)
        wanted = exact(feats.double()).numpy()
        (found,) = run.run(["embs"], {"feats": feats.numpy()})
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
@torch.inference_mode()
def test_a_linear_layer_takes_its_norms_with_a_bias_or_without(bias: bool, before: bool, after: bool) -> None:
    torch.manual_seed(0)
    layer, norms = torch.nn.Linear(5, 4, bias), [torch.nn.BatchNorm1d(size).eval() for size in (5, 4)]
    for norm in norms:
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.normal_()
        norm.running_var.uniform_(0.5, 2)
    taken = [norm if there else None for norm, there in zip(norms, (before, after), strict=True)]
    graph = graphs.Graph()
    graph.output(graph.linear_of(graph.input("x", ["B", 5]), layer, *taken), "y", ["B", 4])
    vectors = torch.randn(3, 5)
    wanted = vectors
    for part in (taken[0], layer, taken[1]):
        wanted = wanted if part is None else part(wanted)
    (found,) = session(graph.model({})).run(["y"], {"x": vectors.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "features",
    [FbankConfig(), SHERPA, FbankConfig(sample_rate=8000, num_mels=40, frame_length_ms=20, frame_shift_ms=15.1)],
)
@pytest.mark.parametrize("cmn", [True, False])
def test_the_front_end_in_the_graph_equals_ours(features: FbankConfig, cmn: bool) -> None:
    from wespeaker_lite.deploy.graphs.builder import Graph
    from wespeaker_lite.deploy.graphs.front_end import fbank

    graph = Graph()
    graph.output(fbank(graph, graph.input("samples", ["B", "n"]), features, cmn), "feats", ["B", "T", "mels"])
    run = session(graph.model({}))
    speech = simulated_speech(2.0, features.sample_rate)
    for size in (*range(features.frame_length, features.frame_length + 2 * features.frame_shift, 37), len(speech)):
        wanted = FrontEnd(features, cmn, in_ark=False)(speech[:size]).numpy()
        (found,) = run.run(["feats"], {"samples": np.stack([speech[:size], speech[-size:]])})
        np.testing.assert_allclose(found[0], wanted, rtol=0, atol=2e-3)  # of logarithms


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with final.pt and its export, whose front end is that of sherpa-onnx."""
    folder = tmp_path_factory.mktemp("exported")
    make_model(folder / "final.pt", to_mapping(SHERPA))
    record = {"mean": [0.0] * 8, "thresholds": {"trials_O": 0.5}, "cosine_linear": None}
    (folder / "verify.json").write_text(json.dumps(record))
    export(folder / "final.pt", folder, folder / "export", About(licence="CC0", data="simulated"))
    return folder


def test_the_files_are_complete_and_the_card_gives_their_accuracy(exported: Path) -> None:
    names = ["card.md", "model.fp16.onnx", "model.onnx", "model.w8.onnx", "model_wave.onnx", "verify.json"]
    assert sorted(path.name for path in (exported / "export").iterdir()) == names
    card = (exported / "export/card.md").read_text()
    assert "The front end of sherpa-onnx is the same" in card
    assert re.search(r"compared with ours: cosine (1\.000000|0\.99999\d) or more", card)
    assert "Weights: CC0" in card
    sizes = {name: (exported / "export" / name).stat().st_size for name in names}
    assert sizes["model.w8.onnx"] < sizes["model.fp16.onnx"] < sizes["model.onnx"] < sizes["model_wave.onnx"]


def test_an_exported_file_is_loaded_and_used_as_its_model(exported: Path, tmp_path: Path) -> None:
    model = SpeakerModel.load(exported / "final.pt")
    one, two = simulated_speech(3.0, 16000), simulated_speech(6.0, 16000)[48000:]
    soundfile.write(tmp_path / "x.wav", np.stack([two, two], 1), 16000, subtype="FLOAT")
    for name, smallest in (("model.onnx", 0.9999999), ("model.fp16.onnx", 0.99999), ("model_wave.onnx", 0.999)):
        found = SpeakerModel.load(exported / "export" / name)
        assert found.features == SHERPA
        assert found.verification.thresholds == {"trials_O": 0.5}
        for audio, rate in ((one, 16000), (one[:4800], 16000), (tmp_path / "x.wav", None)):
            vectors = (found.embed(audio, rate), model.embed(audio, rate))
            assert cosines(*(vector[None].astype(float) for vector in vectors)) >= smallest
    assert SpeakerModel.load(exported / "export/model.onnx").score(one, two, 16000) == pytest.approx(
        model.score(one, two, 16000), abs=1e-5
    )


def embedding_of_sherpa(path: Path, samples: np.ndarray) -> np.ndarray:
    config = sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(path), num_threads=1)
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(config)
    stream = extractor.create_stream()
    stream.accept_waveform(sample_rate=16000, waveform=samples)
    stream.input_finished()
    return np.array(extractor.compute(stream), np.float64)


def check_in_sherpa(folder: Path, samples: np.ndarray) -> None:
    """Embeddings of the real sherpa-onnx against the model's; closer than those of another front end."""
    trained = trained_model.load(folder / "final.pt")
    found = embedding_of_sherpa(folder / "export/model.onnx", samples)
    with torch.inference_mode():
        same, other = (
            trained.model(FrontEnd(features, in_ark=False)(samples)[None])[0].double().numpy()
            for features in (SHERPA, FbankConfig())
        )
    assert cosines(found[None], same[None]) >= 0.99999
    assert np.abs(found - same).max() < 0.1 * np.abs(found - other).max()


def test_sherpa_onnx_gives_the_same_embeddings_of_simulated_speech(exported: Path) -> None:
    speech = simulated_speech(12.0, 16000)
    for seconds in (0.3, 1.0, 2.5, 12.0):
        check_in_sherpa(exported, speech[: round(seconds * 16000)])


def test_sherpa_onnx_gives_the_same_embeddings_of_real_speech(exported: Path, shared_data: Path) -> None:
    for path in sorted((shared_data / "librispeech_clips").glob("*.opus"))[:3]:
        check_in_sherpa(exported, soundfile.read(path, dtype="float32")[0])


def test_another_front_end_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_model(tmp_path / "final.pt", {"num_mels": 80})
    export(tmp_path / "final.pt", tmp_path, tmp_path / "export", About())
    card = (tmp_path / "export/card.md").read_text()
    assert "its front end differs: high_freq 0.0 here, -400.0 there, snip_edges True here" in caplog.text
    assert "The front end of sherpa-onnx differs" in card
    assert "- high_freq: 0.0 here, -400.0 there\n- snip_edges: True here, False there" in card


def test_thresholds_belong_to_the_weights_that_were_exported(exported: Path, tmp_path: Path) -> None:
    record = json.loads((exported / "verify.json").read_text())
    for name in ("final.pt", "verify.json"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    (tmp_path / "verify.json").write_text(json.dumps(record | {"weights": "f00"}))
    with pytest.raises(InputError, match=r"verify\.json beside it is of another model"):
        export(tmp_path / "final.pt", tmp_path, tmp_path / "export", About())
    (tmp_path / "model.onnx").write_bytes((exported / "export/model_wave.onnx").read_bytes())
    with pytest.raises(InputError, match=r"model\.onnx: the verify\.json beside it is of another model"):
        SpeakerModel.load(tmp_path / "model.onnx")
    weights = trained_model.digest(trained_model.load(exported / "final.pt").model)
    (tmp_path / "verify.json").write_text(json.dumps(record | {"weights": weights}))
    assert SpeakerModel.load(tmp_path / "model.onnx").verification.weights == weights


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("model.onnx", "the exported graph is wrong: embeddings differ by nan"),
        ("model.w8.onnx", r"model\.w8\.onnx is wrong: its embeddings are not finite"),
        ("model_wave.onnx", r"model_wave\.onnx is wrong: its embeddings are not finite"),
    ],
)
def test_embeddings_that_are_not_finite_at_one_length_fail_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, message: str
) -> None:
    class Faulty(OnnxNetwork):
        def __init__(self, path: Path, threads: int) -> None:
            self.is_faulty = path.name == file
            super().__init__(path, threads)

        def forward(self, feats: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
            found = super().forward(feats, lengths)
            return found * torch.nan if self.is_faulty and len(feats) == 3 else found

    make_model(tmp_path / "final.pt")
    monkeypatch.setattr(exporting, "OnnxNetwork", Faulty)
    with pytest.raises(InputError, match=message):
        export(tmp_path / "final.pt", tmp_path, tmp_path / "export", About())


def test_a_graph_that_is_another_network_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "final.pt")
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE", 1e-9)
    with pytest.raises(InputError, match="the exported graph is wrong: embeddings differ"):
        export(tmp_path / "final.pt", tmp_path, tmp_path / "export", About())
    assert list((tmp_path / "export").iterdir()) == []


# --- Files of others ---


def foreign(path: Path, name: str, metadata: Mapping[str, str] | None = None) -> Path:
    """A model with the input `name`, as wespeaker (feats) and 3D-Speaker (feature) export them."""
    model = onnx.load(graphs_folder(path))
    model.graph.input[0].name = name
    for node in model.graph.node:
        node.input[:] = [name if value == "feats" else value for value in node.input]
    onnx.helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def graphs_folder(path: Path) -> Path:
    """model.onnx of a small network on 80 mels, beside the path."""
    target = path.with_name("plain.onnx")
    trained = trained_model.load(make_model(path.with_name("plain.pt"), {"num_mels": 80}))
    target.write_bytes(graphs.of_feats("bc_cmt", trained.model, 80, {}).SerializeToString())
    return target


@pytest.mark.parametrize(
    ("name", "metadata", "options", "full_scale"),
    [
        ("feats", {}, {"window": "hamming"}, 1 << 15),
        ("x", {"framework": "wespeaker", "sample_rate": "16000"}, {"window": "hamming"}, 1 << 15),
        ("feature", {}, {}, 1),
        ("x", {"framework": "3d-speaker", "sample_rate": "8000"}, {"sample_rate": 8000}, 1),
    ],
)
def test_models_of_wespeaker_and_3d_speaker_use_their_own_front_end(
    tmp_path: Path, name: str, metadata: Mapping[str, str], options: Mapping[str, Any], full_scale: int
) -> None:
    import torchaudio

    rate = options.get("sample_rate", 16000)
    found = SpeakerModel.load(foreign(tmp_path / "x.onnx", name, metadata))
    assert found.features == FbankConfig(**options)
    speech = simulated_speech(2.0, rate)
    # As their extractors call it.
    feats = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(speech)[None] * full_scale, num_mel_bins=80, frame_length=25, frame_shift=10, dither=0.0,
        sample_frequency=rate, window_type=options.get("window", "povey"), use_energy=False,
    )  # fmt: skip
    network = trained_model.load(tmp_path / "plain.pt").model
    with torch.inference_mode():
        wanted = network((feats - feats.mean(0))[None])[0].numpy()
    np.testing.assert_allclose(found.embed(speech, rate), wanted, atol=1e-4)


def test_a_file_that_is_not_a_speaker_model_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    foreign(tmp_path / "nemo.onnx", "audio_signal", {"framework": "nemo"})
    foreign(tmp_path / "damaged.onnx", "feats", {"wespeaker_lite": "{"})
    faults = {
        "none": "no such file",
        "text": "not a model that onnxruntime can read",
        "nemo": "front end is unknown",
        "damaged": "export it again",
    }
    for name, fault in faults.items():
        with pytest.raises(InputError, match=f"{name}.onnx.*{fault}") as caught:
            SpeakerModel.load(tmp_path / f"{name}.onnx")
        assert len(str(caught.value).splitlines()) == 1
