"""Check whether a student fits a teacher that is not trained yet, which takes a second."""

from pathlib import Path

from torch import nn

from wespeaker_lite import distill
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.distill.outputs import outputs_for_silence
from wespeaker_lite.distill.teacher import check_features
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load

CLASSES = 2  # arbitrary: the check does not depend on it


def check_compatibility(student: Path, teacher: Path) -> nn.ModuleDict:
    """Build the KD terms of a student's config for a teacher's config, both with random weights.

    Raises:
        InputError: if training with this teacher would raise it.
    """
    ours, theirs = load(student), load(teacher)
    our_config, their_config = to_mapping(ours), to_mapping(theirs)
    sees_crops = ours.distill.source == "crop"
    if sees_crops:
        check_features(teacher, their_config, our_config)
    network, frames = trained_model.build_model(their_config), ours.crop.frames
    if ours.distill.classifier == "centroids":
        head = trained_model.build_head(our_config, network.embed_dim, CLASSES)
    else:  # imported weights have no head
        head = None if theirs.pretrained else trained_model.build_head(their_config, network.embed_dim, CLASSES)
    student_outputs = outputs_for_silence(trained_model.build_model(our_config), frames, ours.features.num_mels)
    teacher_outputs = outputs_for_silence(network, frames, theirs.features.num_mels, head, inside=sees_crops)
    bank = None if sees_crops else teacher_outputs.embedding
    return distill.build_terms(
        ours.distill.terms, Partners(student_outputs, teacher_outputs, ours.head, CLASSES, frames, bank)
    )
