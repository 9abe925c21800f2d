"""The card of an exported model: network, accuracy of the files, front end, training and error rates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.deploy.error_rates import Rates
from wespeaker_lite.deploy.front_end import FrontEnd, sherpa_differences
from wespeaker_lite.deploy.quantise import Quantised
from wespeaker_lite.recipe.trained_model import TrainedModel
from wespeaker_lite.report.tables import results_table, show, table

_INPUTS = {
    "model.onnx": "`feats` (B, T, {mels})",
    "model.fp16.onnx": "the same; weights are stored in 16 bits, and converted to 32 on loading",
    "model.w8.onnx": "the same; weights are stored in 8 bits, and converted to 32 on loading",
    "model.int8.onnx": "the same; products over channels are computed in 8 bits",
    "model_wave.onnx": "`samples` (B, n) in [-1, 1], {rate} Hz; with the front end",
}


@dataclass(frozen=True)
class About:
    """Information for the card that is not in the model: the speakers' language, the licence, the training data."""

    language: str = "not stated"
    licence: str = "not stated"
    data: str = "not stated"


@dataclass(frozen=True)
class Figures:
    """Sizes of the files in bytes, their checks, results.json or None, their error rates by trial list, and the result
    of quantisation or None.
    """

    sizes: Mapping[str, int]
    checks: Mapping[str, float]
    results: Mapping[str, Any] | None
    rates: Rates
    quantised: Quantised | None = None


def text(path: Path, trained: TrainedModel, front_end: FrontEnd, about: About, figures: Figures) -> str:
    """The card as Markdown."""
    config, features = trained.config, front_end.features
    rows = [
        f"| {name} | {size / 1e6:.2f} MB | {_INPUTS[name].format(mels=features.num_mels, rate=features.sample_rate)} "
        f"| {_exactness(name, figures.checks)} |"
        for name, size in figures.sizes.items()
    ]
    options = ", ".join(f"{key} {value}" for key, value in to_mapping(features).items())
    network = ", ".join(f"{key} {value}" for key, value in config["model"].items())
    teacher = _teacher(config["distill"])
    return "\n".join(
        [
            f"# {path.resolve().parent.name}",
            "",
            f"A speaker model of wespeaker_lite: {network}. Output: `embs` (B, {trained.model.embed_dim}), compared by "
            "cosine. It was exported from `final.pt`. Any length and batch size works.",
            "",
            "| file | size | input | compared with final.pt |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            *_quantised(figures.quantised),
            "## Front end",
            "",
            f"Kaldi's fbank of samples in the range of 16-bit integers: {options}; "
            f"{'the mean over time is subtracted' if front_end.cmn else 'no mean is subtracted'}.",
            "",
            *_sherpa(front_end, figures.checks),
            "",
            "## Training",
            "",
            f"Training speakers (classes): {len(trained.classes) or 'unknown, the weights are imported'}. "
            f"Data: {about.data}. Language: {about.language}. Teacher: {teacher}. Seed: {config['seed']}.",
            "",
            "## Error rates",
            "",
            *_results(figures.results),
            "",
            *_rates(figures.rates),
            "",
            "## Licence",
            "",
            f"Weights: {about.licence}. Code: Apache-2.0.",
            "",
        ]
    )


def _exactness(name: str, checks: Mapping[str, float]) -> str:
    if name in checks:
        return f"cosine {checks[name]:.6f} or more"
    return f"largest difference {checks['difference']:.1e}, relative to the largest value if that is above 1"


def _sherpa(front_end: FrontEnd, checks: Mapping[str, float]) -> list[str]:
    differences = sherpa_differences(front_end)
    figure = f"cosine {checks['sherpa']:.6f} or more" if "sherpa" in checks else "not tried"
    if not differences:
        return [
            f"The front end of sherpa-onnx is the same. Its embeddings of model.onnx, compared with ours: {figure}."
        ]
    return [
        "The front end of sherpa-onnx differs, so its embeddings differ from those in training "
        f"({figure}). Train with its options, or compute the features for model.onnx yourself:",
        "",
        *(f"- {name}: {difference}" for name, difference in differences.items()),
    ]


def _results(results: Mapping[str, Any] | None) -> list[str]:
    if results is None:
        return ["Not measured: there was no results.json of the experiment."]
    return ["```", results_table(results).rstrip("\n"), "```"]


def _quantised(quantised: Quantised | None) -> list[str]:
    if quantised is None:
        return []
    kept = ", ".join(f"{name} ({harm:.1e})" for name, harm in quantised.kept.items()) or "none"
    return [
        f"model.int8.onnx computes {quantised.products} products in 8 bits, calibrated on training utterances. The "
        f"mean cosine of its embeddings and those in float is {quantised.cosine:.4f} on other training utterances. "
        f"Products that stay in float, with 1 minus the cosine when only that one is in 8 bits: {kept}.",
        "",
    ]


def _rates(rates: Rates) -> list[str]:
    if not rates:
        return ["These are of final.pt. model.onnx equals it up to rounding. The other files were not tested."]
    files = list(next(iter(rates.values())))
    rows = [[trials, *(show("eer", found[name]) for name in files)] for trials, found in rates.items()]
    return [
        "EER in % of each file, with the cosine scores of `bin.verify`. model.onnx equals final.pt up to rounding:",
        "",
        table(["trials", *files], rows).rstrip("\n"),
    ]


def _teacher(distill: Mapping[str, Any]) -> str:
    return distill["teacher"] or ", ".join(distill.get("teachers", ())) or distill["embeddings"] or "none"
