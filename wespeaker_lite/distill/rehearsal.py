"""Whether a student and a teacher that is yet to be trained fit: told in a second, not after the teacher's training."""

from pathlib import Path

import torch

from wespeaker_lite import distill, trained_model
from wespeaker_lite.config import to_mapping
from wespeaker_lite.distill.outputs import outputs_for_silence, outputs_of
from wespeaker_lite.distill.teacher import check_features
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.experiment import load

CLASSES = 2  # any number: no term's fit hangs on it


def rehearse(student: Path, teacher: Path) -> None:
    """Build the KD terms of a student's config for a teacher's, both with fresh weights.

    Raises:
        InputError: where training would end with it, once the teacher is trained.
    """
    ours, theirs = load(student), load(teacher)
    config = to_mapping(theirs)
    sees_crops = ours.distill.source == "crop"
    if sees_crops:
        check_features(teacher, config, to_mapping(ours))
    network = trained_model.build_model(config).eval()
    # Weights from outside come without a head.
    head = None if theirs.pretrained else trained_model.build_head(config, network.embed_dim, CLASSES).eval()
    frames, nobody = ours.crop.frames, torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        taught = outputs_of(network, head, torch.zeros(1, frames, theirs.features.num_mels), nobody, inside=sees_crops)
    shown = outputs_for_silence(trained_model.build_model(to_mapping(ours)), frames, ours.features.num_mels)
    distill.build_terms(ours.distill.terms, Partners(shown, taught, ours.head, CLASSES, frames))
