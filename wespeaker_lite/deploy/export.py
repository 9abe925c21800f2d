"""Export of a trained model: files for onnxruntime and sherpa-onnx, and a card. Files are checked against the model."""

import json
import logging
import os
import random
import shutil
from collections.abc import Iterable
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
from wespeaker_lite.deploy.error_rates import EvaluationSet, Rates, error_rates
from wespeaker_lite.deploy.front_end import FrontEnd, sherpa_differences
from wespeaker_lite.deploy.onnx_model import METADATA, OnnxNetwork, cosines
from wespeaker_lite.deploy.quantise import Quantised, QuantiseOptions, quantise
from wespeaker_lite.deploy.speaker_model import SpeakerModel
from wespeaker_lite.deploy.storage import Storage, stored
from wespeaker_lite.extraction.extract import read_features
from wespeaker_lite.kaldi.arks import read_scp
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.scoring.results import read_results
from wespeaker_lite.scoring.verification import read_verification, verification_file

log = logging.getLogger(__name__)

FLOAT, HALF, EIGHT, WAVE = "model.onnx", "model.fp16.onnx", "model.w8.onnx", "model_wave.onnx"
INT8, CARD = "model.int8.onnx", "card.md"
FORMS = (FLOAT, HALF, EIGHT, INT8, WAVE)
SECONDS = (0.3, 1.0, 2.0, 5.0, 10.0, 20.0)  # lengths of the checks
# Largest difference of the graph's embeddings, relative to the largest value if that is above 1. Rounding to 32 bits
# caused up to 1e-5 (a trained CAM++, 0.3 s), and as much in torch. The graph of another network differs by 1e-2.
LARGEST_DIFFERENCE = 1e-4
SMALLEST_COSINE = 0.99999  # for equal front ends
_BATCH = 3
_MORE_ERRORS = 1.05  # a warning if the EER is more than this many times that of final.pt


def export(
    path: Path,
    experiment: Path,
    out: Path,
    about: About,
    test: EvaluationSet | None = None,
    calibration: Path | None = None,
) -> None:
    """Export a final.pt to the folder `out`. Files appear there only after all checks.

    The thresholds (verify.json) and error rates of stage 6 are copied from `experiment`. If it has no thresholds, those
    beside the model are used. With a `test` set, the card has the error rates of each file. With the data dir
    `calibration`, which has fbanks of training utterances, there is also a file that computes in 8 bits.

    Raises:
        InputError: if the network has no graph, or a file differs from the model; as `error_rates` and `quantise`.
    """
    trained = trained_model.load(path)
    features = from_mapping(FbankConfig, trained.config["features"], f"{path}: features")
    front_end = FrontEnd(features, trained.config["crop"]["cmn"], in_ark=False)
    part = out / ".part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        weights = trained_model.digest(trained.model)
        _write_graphs(trained, front_end, weights, part, about)
        quantised = _quantise(trained, calibration, part) if calibration else None
        checks = _check(path, trained, front_end, part)
        verification = experiment / "verify.json"
        verification = verification if verification.exists() else verification_file(path)
        if verification:
            shutil.copyfile(verification, part / "verify.json")
            read_verification(part / FLOAT).check(weights, str(path))
        results = read_results(experiment) if (experiment / "results.json").exists() else None
        sizes = {name: (part / name).stat().st_size for name in FORMS if (part / name).exists()}
        rates = _error_rates(path, part, sizes, test) if test else {}
        figures = card.Figures(sizes, checks, results, rates, quantised)
        (part / CARD).write_text(card.text(path, trained, front_end, about, figures))
        for file in sorted(part.iterdir()):
            os.replace(file, out / file.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if differences := sherpa_differences(front_end):
        listed = ", ".join(f"{name} {difference}" for name, difference in differences.items())
        log.warning("sherpa-onnx will give other embeddings, since its front end differs: %s", listed)
    log.info("%s: %s", out, ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()))


def _write_graphs(
    trained: trained_model.TrainedModel, front_end: FrontEnd, weights: str, folder: Path, about: About
) -> None:
    name, features = trained.config["model"]["name"], front_end.features
    metadata = {
        # Keys of sherpa-onnx. They request samples in the range of 16-bit integers, and subtraction of the mean.
        "framework": "wespeaker",
        "language": about.language,
        "url": "wespeaker_lite",
        "comment": f"{name}, trained by wespeaker_lite; licence: {about.licence}",
        "sample_rate": str(features.sample_rate),
        "output_dim": str(trained.model.embed_dim),
        "normalize_samples": "0",
        "feature_normalize_type": "global-mean" if front_end.cmn else "",
    }
    ours = {"features": to_mapping(features), "cmn": front_end.cmn, "weights": weights}
    of_feats = {**metadata, METADATA: json.dumps({**ours, "input": "feats"})}
    exact = graphs.of_feats(name, trained.model, features.num_mels, of_feats)
    storages: dict[str, Storage] = {FLOAT: "fp32", HALF: "fp16", EIGHT: "int8"}
    for file, storage in storages.items():
        _save(stored(exact, storage), folder / file)
    of_samples = {**metadata, METADATA: json.dumps({**ours, "input": "samples"})}
    _save(graphs.of_samples(name, trained.model, features, front_end.cmn, of_samples), folder / WAVE)


def _quantise(trained: trained_model.TrainedModel, calibration: Path, folder: Path) -> Quantised:
    options = QuantiseOptions()
    places = read_scp(calibration / "feats.scp")
    chosen = random.Random(0).sample(sorted(places), min(options.utterances, len(places)))
    feats = [read_features(key, places[key], trained).numpy()[: options.frames] for key in chosen]
    quantised = quantise(onnx.load(folder / FLOAT), feats, options)
    _save(quantised.model, folder / INT8)
    return quantised


def _save(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


@torch.inference_mode()
def _check(path: Path, trained: trained_model.TrainedModel, front_end: FrontEnd, folder: Path) -> dict[str, float]:
    """Compare the embeddings of the files with those of the model, on simulated speech.

    Raises:
        InputError: if a file differs from the model by more than rounding.
    """
    networks = {name: OnnxNetwork(folder / name, threads=1) for name in FORMS if (folder / name).exists()}
    rate = front_end.features.sample_rate
    speech = simulated_speech(max(SECONDS), rate)
    differences: list[float] = []
    smallest: dict[str, list[float]] = {name: [] for name in networks if name != FLOAT}
    for seconds in SECONDS:
        size = round(seconds * rate)
        starts = range(0, _BATCH * rate if seconds == 2 else 1, rate)
        batch = np.stack([speech[start : start + size] for start in starts])
        feats = torch.stack([front_end(samples) for samples in batch])
        wanted = trained.model(feats).double().numpy()
        for name, network in networks.items():
            found = network(torch.from_numpy(batch) if name == WAVE else feats).double().numpy()
            if name == FLOAT:
                differences.append(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
            else:
                smallest[name].append(cosines(found, wanted).min())
    difference = float(np.max(differences))  # nan if one of them is, unlike Python's max
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(f"{path}: the exported graph is wrong: embeddings differ by {difference:.2g}")
    checks = {"difference": difference, **{name: float(np.min(each)) for name, each in smallest.items()}}
    if (sherpa := _in_sherpa(folder / FLOAT, trained, front_end, speech)) is not None:
        checks["sherpa"] = sherpa
    for name, value in checks.items():
        if not np.isfinite(value):
            raise InputError(f"{path}: {name} is wrong: its embeddings are not finite")
    same = [WAVE, *([] if sherpa is None or sherpa_differences(front_end) else ["sherpa"])]
    for name in same:
        if not checks[name] >= SMALLEST_COSINE:
            raise InputError(f"{path}: {name} is wrong: the cosine of its embeddings is {checks[name]:.6f}")
    return checks


def _error_rates(path: Path, folder: Path, files: Iterable[str], test: EvaluationSet) -> Rates:
    """Error rates of final.pt and of all files except model.onnx, which equals it up to rounding."""
    models = {path.name: SpeakerModel.load(path)}
    models |= {name: SpeakerModel.load(folder / name) for name in files if name != FLOAT}
    rates = error_rates(models, test)
    for trials, found in rates.items():
        for name, rate in found.items():
            if rate > _MORE_ERRORS * found[path.name]:
                rates_in_percent = 100 * rate, 100 * found[path.name]
                log.warning("%s: EER on %s is %.2f %%, of the model %.2f %%", name, trials, *rates_in_percent)
    return rates


def _in_sherpa(
    file: Path, trained: trained_model.TrainedModel, front_end: FrontEnd, speech: np.ndarray
) -> float | None:
    """The smallest cosine of embeddings of sherpa-onnx and the model. None if it is missing or cannot run the model."""
    try:
        import sherpa_onnx
    except ImportError:
        return None
    if sherpa_differences(front_end).keys() & {"sample_rate", "num_mels", "cmn"}:
        return None
    extractor = sherpa_onnx.SpeakerEmbeddingExtractor(
        sherpa_onnx.SpeakerEmbeddingExtractorConfig(model=str(file), num_threads=1, provider="cpu")
    )
    rate = front_end.features.sample_rate
    found: list[np.ndarray] = []
    for seconds in SECONDS:
        samples = speech[: round(seconds * rate)]
        stream = extractor.create_stream()
        stream.accept_waveform(sample_rate=rate, waveform=samples)
        stream.input_finished()
        embedding = np.array(extractor.compute(stream), np.float64)[None]
        found.append(cosines(embedding, trained.model(front_end(samples)[None]).double().numpy()))
    return float(np.min(found))


def simulated_speech(seconds: float, rate: int) -> np.ndarray:
    """Speech of several simulated speakers, concatenated: (n,) float32 in [-1, 1]."""
    rng = np.random.default_rng(0)
    parts: list[Any] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        parts.append(simulate_utterance(make_speaker(0, len(parts)), make_session(rng), rng) / np.float32(32768))
    return convert(np.concatenate(parts).astype(np.float32)[: round(seconds * SAMPLE_RATE), None], SAMPLE_RATE, rate)
