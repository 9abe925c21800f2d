"""The card of an exported model: what it is, how exact its files are, and what feeds it."""

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
    "model.fp16.onnx": "the same; weights in 16 bits, which are 32 once it is loaded",
    "model.w8.onnx": "the same; weights in 8 bits, which are 32 once it is loaded",
    "model.int8.onnx": "the same; products over channels are computed in 8 bits",
    "model_wave.onnx": "`samples` (B, n) in [-1, 1], {rate} Hz; the front end is inside",
}


@dataclass(frozen=True)
class About:
    """What a file says of itself that its weights do not: the speakers' language, the licence, the training data."""

    language: str = "not stated"
    licence: str = "not stated"
    data: str = "not stated"


@dataclass(frozen=True)
class Figures:
    """Sizes of the files in bytes, their checks, results.json or None, the error rates of files by trial list, and what
    came of quantisation if there was one.
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
            "cosine. It was made from `final.pt`; no length or batch size is fixed in it.",
            "",
            "| file | size | input | against final.pt |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            *_quantised(figures.quantised),
            "## Front end",
            "",
            f"Kaldi's fbank of samples of 16 bits: {options}; "
            f"{'the mean over time is subtracted' if front_end.cmn else 'no mean is subtracted'}.",
            "",
            *_sherpa(front_end, figures.checks),
            "",
            "## Training",
            "",
            f"Training speakers (classes): {len(trained.classes) or 'none here, the weights come from outside'}. "
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
            f"Of the weights: {about.licence}. Of the code that made them: Apache-2.0.",
            "",
        ]
    )


def _exactness(name: str, checks: Mapping[str, float]) -> str:
    if name in checks:
        return f"cosine {checks[name]:.6f} or more"
    return f"largest difference {checks['difference']:.1e}, relative to the largest value above 1"


def _sherpa(front_end: FrontEnd, checks: Mapping[str, float]) -> list[str]:
    differences = sherpa_differences(front_end)
    figure = f"cosine {checks['sherpa']:.6f} or more" if "sherpa" in checks else "not tried"
    if not differences:
        return [f"This is what sherpa-onnx computes as well. Its embeddings of model.onnx against ours: {figure}."]
    return [
        "sherpa-onnx computes something else, so embeddings there are not those that were trained "
        f"({figure}); train with its options, or feed model.onnx yourself:",
        "",
        *(f"- {name}: {difference}" for name, difference in differences.items()),
    ]


def _results(results: Mapping[str, Any] | None) -> list[str]:
    if results is None:
        return ["Not measured: there was no results.json beside the model."]
    return ["```", results_table(results).rstrip("\n"), "```"]


def _quantised(quantised: Quantised | None) -> list[str]:
    if quantised is None:
        return []
    kept = ", ".join(f"{name} ({harm:.1e})" for name, harm in quantised.kept.items()) or "none"
    return [
        f"model.int8.onnx computes {quantised.products} products in 8 bits, by ranges of training utterances; the mean "
        f"cosine of embeddings to those in floats is {quantised.cosine:.4f} on others of them. Products that had to "
        f"stay in floats, with what each alone takes from a cosine of 1: {kept}.",
        "",
    ]


def _rates(rates: Rates) -> list[str]:
    if not rates:
        return ["Those above are of final.pt. model.onnx is the same to rounding; the other files were not measured."]
    files = list(next(iter(rates.values())))
    rows = [[trials, *(show("eer", found[name]) for name in files)] for trials, found in rates.items()]
    return [
        "EER in % of each file, by cosine as `bin.verify` makes it; model.onnx is final.pt to rounding:",
        "",
        table(["trials", *files], rows).rstrip("\n"),
    ]


def _teacher(distill: Mapping[str, Any]) -> str:
    return distill["teacher"] or ", ".join(distill.get("teachers", ())) or distill["embeddings"] or "none"
