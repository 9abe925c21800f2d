"""Export of a trained model: files for onnxruntime and sherpa-onnx, checked against the model, and a card."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.audio.reading import convert
from wespeaker_lite.core.config import from_mapping, to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.simulation import SAMPLE_RATE, make_session, make_speaker, simulate_utterance
from wespeaker_lite.deploy import card, graphs
from wespeaker_lite.deploy.card import About
from wespeaker_lite.deploy.front_end import FrontEnd, sherpa_differences
from wespeaker_lite.deploy.onnx_model import METADATA, OnnxNetwork
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.scoring.results import read_results

log = logging.getLogger(__name__)

FLOAT, HALF, WAVE, CARD = "model.onnx", "model.fp16.onnx", "model_wave.onnx", "card.md"
SECONDS = (0.3, 1.0, 2.0, 5.0, 10.0, 20.0)  # lengths of the checks
# Of the graph's embeddings, relative to the largest value where that is above 1. The rounding of 32 bits has come to
# 1e-5 (a trained CAM++, of 0.3 s), and to as much in torch; a graph of another network differs by 1e-2.
LARGEST_DIFFERENCE = 1e-4
SMALLEST_COSINE = 0.99999  # where front ends are the same
_BATCH = 3


def export(path: Path, experiment: Path, out: Path, about: About) -> None:
    """Write the exported files of a final.pt into the folder `out`, once all of them have passed their checks.

    With them go the thresholds (verify.json) and the error rates that stage 6 has left in `experiment`, if it has.

    Raises:
        InputError: where the network has no graph, or a file differs from the model.
    """
    trained = trained_model.load(path)
    features = from_mapping(FbankConfig, trained.config["features"], f"{path}: features")
    front_end = FrontEnd(features, trained.config["crop"]["cmn"], in_ark=False)
    part = out / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_graphs(trained, front_end, part, about)
        checks = _check(path, trained, front_end, part)
        if (verification := experiment / "verify.json").exists():
            shutil.copyfile(verification, part / verification.name)
        results = read_results(experiment) if (experiment / "results.json").exists() else None
        sizes = {name: (part / name).stat().st_size for name in (FLOAT, HALF, WAVE)}
        (part / CARD).write_text(card.text(path, trained, front_end, about, card.Figures(sizes, checks, results)))
        for file in sorted(part.iterdir()):
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if differences := sherpa_differences(front_end):
        listed = ", ".join(f"{name} {difference}" for name, difference in differences.items())
        log.warning("embeddings in sherpa-onnx will be others, since its front end is another: %s", listed)
    log.info("%s: %s", out, ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()))


def _write_graphs(trained: trained_model.TrainedModel, front_end: FrontEnd, folder: Path, about: About) -> None:
    name, features = trained.config["model"]["name"], front_end.features
    metadata = {
        # What sherpa-onnx asks for. Samples are to be those of 16-bit integers, and the mean is to be subtracted.
        "framework": "wespeaker",
        "language": about.language,
        "url": "wespeaker_lite",
        "comment": f"{name}, trained by wespeaker_lite; licence: {about.licence}",
        "sample_rate": str(features.sample_rate),
        "output_dim": str(trained.model.embed_dim),
        "normalize_samples": "0",
        "feature_normalize_type": "global-mean" if front_end.cmn else "",
    }
    ours = {"features": to_mapping(features), "cmn": front_end.cmn}
    of_feats = {**metadata, METADATA: json.dumps({**ours, "input": "feats"})}
    for file, half in ((FLOAT, False), (HALF, True)):
        _save(graphs.of_feats(name, trained.model, features.num_mels, of_feats, half), folder / file)
    of_samples = {**metadata, METADATA: json.dumps({**ours, "input": "samples"})}
    _save(graphs.of_samples(name, trained.model, features, front_end.cmn, of_samples), folder / WAVE)


def _save(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


@torch.inference_mode()
def _check(path: Path, trained: trained_model.TrainedModel, front_end: FrontEnd, folder: Path) -> dict[str, float]:
    """Compare the files with the model on simulated speech.

    Raises:
        InputError: where a file is not the model, to rounding.
    """
    exact, half, wave = (OnnxNetwork(folder / name, threads=1) for name in (FLOAT, HALF, WAVE))
    rate = front_end.features.sample_rate
    speech = simulated_speech(max(SECONDS), rate)
    difference, cosines = 0.0, {HALF: 1.0, WAVE: 1.0}
    for seconds in SECONDS:
        size = round(seconds * rate)
        starts = range(0, _BATCH * rate if seconds == 2 else 1, rate)
        batch = np.stack([speech[start : start + size] for start in starts])
        feats = torch.stack([front_end(samples) for samples in batch])
        wanted = trained.model(feats).double().numpy()
        found = {FLOAT: exact(feats), HALF: half(feats), WAVE: wave(torch.from_numpy(batch))}
        worst = np.abs(found[FLOAT].double().numpy() - wanted).max() / max(1.0, np.abs(wanted).max())
        difference = max(difference, float(worst))
        for name in cosines:
            cosines[name] = min(cosines[name], cosine(found[name].double().numpy(), wanted))
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(f"{path}: the exported graph is another one: embeddings differ by {difference:.2g}")
    checks = {"difference": difference, **cosines}
    if (sherpa := _in_sherpa(folder / FLOAT, trained, front_end, speech)) is not None:
        checks["sherpa"] = sherpa
    same = [WAVE, *([] if sherpa is None or sherpa_differences(front_end) else ["sherpa"])]
    for name in same:
        if not checks[name] >= SMALLEST_COSINE:
            raise InputError(f"{path}: {name} is another model: the cosine of its embeddings is {checks[name]:.6f}")
    return checks


def _in_sherpa(
    file: Path, trained: trained_model.TrainedModel, front_end: FrontEnd, speech: np.ndarray
) -> float | None:
    """The smallest cosine of embeddings by sherpa-onnx and by the model; None where it is not here or cannot run it."""
    try:
        import sherpa_onnx
    except ImportError:
        return None
    if sherpa_differences(front_end).keys() & {"sample_rate", "num_mels", "cmn"}:
        return None
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(
        sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(file), num_threads=1, provider="cpu")
    )
    rate, smallest = front_end.features.sample_rate, 1.0
    for seconds in SECONDS:
        samples = speech[: round(seconds * rate)]
        stream = extractor.create_stream()
        stream.accept_waveform(sample_rate=rate, waveform=samples)
        stream.input_finished()
        found = np.array(extractor.compute(stream), np.float64)[None]
        smallest = min(smallest, cosine(found, trained.model(front_end(samples)[None]).double().numpy()))
    return smallest


def cosine(one: np.ndarray, two: np.ndarray) -> float:
    """The smallest cosine of two of (B, D), row by row."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(((one * two).sum(1) / norms).min())


def simulated_speech(seconds: float, rate: int) -> np.ndarray:
    """Some simulated speakers one after the other, (n,) float32 in [-1, 1]."""
    rng = np.random.default_rng(0)
    parts: list[Any] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts.append(simulate_utterance(make_speaker(0, len(parts)), make_session(rng), rng) / np.float32(32768))
    return convert(np.concatenate(parts).astype(np.float32)[: round(seconds * SAMPLE_RATE), None], SAMPLE_RATE, rate)
