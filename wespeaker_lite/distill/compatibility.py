"""Whether a student and a teacher that is yet to be trained fit: told in a second, not after the teacher's training."""

from pathlib import Path

from torch import nn

from wespeaker_lite import distill
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.distill.outputs import outputs_for_silence
from wespeaker_lite.distill.teacher import check_features
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load

CLASSES = 2  # any number: no term's fit depends on it


def check_compatibility(student: Path, teacher: Path) -> nn.ModuleDict:
    """Build the KD terms of a student's config for a teacher's, both with fresh weights.

    Raises:
        InputError: where training would end with it, once the teacher is trained.
    """
    ours, theirs = load(student), load(teacher)
    our_config, their_config = to_mapping(ours), to_mapping(theirs)
    sees_crops = ours.distill.source == "crop"
    if sees_crops:
        check_features(teacher, their_config, our_config)
    network, frames = trained_model.build_model(their_config), ours.crop.frames
    if ours.distill.classifier == "centroids":
        head = trained_model.build_head(our_config, network.embed_dim, CLASSES)
    else:  # weights from outside come without a head
        head = None if theirs.pretrained else trained_model.build_head(their_config, network.embed_dim, CLASSES)
    shown = outputs_for_silence(trained_model.build_model(our_config), frames, ours.features.num_mels)
    taught = outputs_for_silence(network, frames, theirs.features.num_mels, head, inside=sees_crops)
    bank = None if sees_crops else taught.embedding
    return distill.build_terms(ours.distill.terms, Partners(shown, taught, ours.head, CLASSES, frames, bank))
