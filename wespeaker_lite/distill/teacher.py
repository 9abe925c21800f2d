"""Frozen teachers: a trained network that gets the student's crops, or embeddings computed once per utterance."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.audio.speed import unperturbed
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.labels import UNLABELLED
from wespeaker_lite.distill.outputs import Outputs, logits_of, outputs_of
from wespeaker_lite.kaldi.arks import read_array, read_scp
from wespeaker_lite.models import margin
from wespeaker_lite.models.margin import HeadConfig, MarginHead
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.trained_model import TrainedModel, build_head, shared_classes

log = logging.getLogger(__name__)


class NetworkTeacher(nn.Module):
    """A trained network and its head, if it has one: frozen, in evaluation mode, without gradients."""

    def __init__(self, path: str | Path, config: Mapping[str, Any] | None, classes: Sequence[str]) -> None:
        """Load the teacher. `config` is that of the student, or None if the teacher gets no crops of the student.

        Raises:
            InputError: if its features differ from the student's, or its head was trained on other speakers.
        """
        super().__init__()
        trained = trained_model.load(path)
        if config is not None:
            check_features(path, trained.config, config)
        self.model, self.embed_dim = trained.model, trained.model.embed_dim
        self.head = TeacherHead(path, trained, classes) if trained.head is not None else None
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> Outputs:
        """Compute the teacher's outputs for crops (B, T, F) and labels (B,). The indices are not used."""
        outputs = outputs_of(self.model, self.head, feats, labels, inside)
        outputs.classes = self.head.classes if self.head is not None else None
        return outputs


def check_features(path: str | Path, teacher: Mapping[str, Any], student: Mapping[str, Any]) -> None:
    """Check that the teacher's network reads the features of the student. `path` is the file of the teacher.

    Raises:
        InputError: naming what differs.
    """
    theirs, ours = ({**config["features"], "crop.cmn": config["crop"]["cmn"]} for config in (teacher, student))
    different = [f"{key} {theirs.get(key)}, not {value}" for key, value in ours.items() if theirs.get(key) != value]
    if different:
        raise InputError(f"{path}: the teacher reads other features than the student: {'; '.join(different)}")


def check_embedded(scp: str | Path, embedded: Collection[str], utterances: Iterable[str]) -> None:
    """Check that all training utterances are among those that have an embedding in `scp`.

    Raises:
        InputError: naming one that is not.
    """
    missing = [utterance for utterance in utterances if utterance not in embedded]
    if missing:
        raise InputError(f"{scp}: no embedding of {len(missing)} training utterances, such as {missing[0]}")


class ArkTeacher(nn.Module):
    """Embeddings of whole utterances, read once, with a head if the network that made them is available."""

    def __init__(self, scp: str | Path, utterances: Sequence[str], head: "TeacherHead | None" = None) -> None:
        """Read the embeddings of all training utterances, (N, D) float32.

        Raises:
            InputError: naming utterances that have no embedding.
        """
        super().__init__()
        places = read_scp(scp)
        check_embedded(scp, places, utterances)
        table = np.stack([read_array(utterance, places[utterance]) for utterance in utterances])
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.head = head.requires_grad_(False).eval() if head is not None else None
        self.embed_dim = table.shape[1]

    def classify_by_centroids(self, labels: Tensor, classes: int, config: HeadConfig) -> None:
        """Use the centroids of speakers as a head.

        labels: of the utterances, (N,). Unlabelled ones, with -1, are in no centroid. config: that of the student.
        """
        known = labels != UNLABELLED
        self.head = CentroidHead(self.table[known], labels[known], classes, config).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> Outputs:
        """Return the outputs for indices of utterances (B,) and labels (B,). There are no maps and no attention."""
        embedding = self.table[indices]
        classes = self.head.classes if self.head is not None else None
        return Outputs(embedding, *logits_of(self.head, embedding, labels), classes=classes)


class CentroidHead(nn.Module):
    """A head whose class weights are the means of the speakers' embeddings, normalised to unit norm.

    Scale and margin are those of the student's head. If that is a softmax head, the margin is 0.
    """

    classes = None

    def __init__(self, table: Tensor, labels: Tensor, classes: int, config: HeadConfig) -> None:
        """Compute the centroids of embeddings (N, D) with labels (N,)."""
        super().__init__()
        if config.name == "softmax":
            config = replace(config, name="am", margin=0.0)
        self.head: MarginHead = margin.build_head(to_mapping(replace(config, subcenters=1)), table.shape[1], classes)
        self.scale = self.head.scale
        sums = torch.zeros(classes, table.shape[1]).index_add_(0, labels, F.normalize(table, dim=1))
        self.head.weight.data.copy_(F.normalize(sums, dim=1)[None])

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As in `MarginHead`."""
        return self.head.cosines_and_logits(embeddings, labels)


class TeacherHead(nn.Module):
    """A teacher's head over the classes that the student has too. Speed-perturbed speakers may be only in one of them.

    The logits are (B, n). classes: the student's indices of these n classes, (n,) int64, or None if both have the same
    classes.
    """

    def __init__(self, path: str | Path, trained: TrainedModel, classes: Sequence[str]) -> None:
        """Take the head of the trained model in `path`, for a student with these classes.

        Raises:
            InputError: if teacher and student have other speakers. Speed-perturbed speakers may differ.
        """
        super().__init__()
        self.head, self.scale = trained.head, trained.head.scale
        self.register_buffer("classes", None, persistent=False)
        self.register_buffer("place", None, persistent=False)
        if trained.classes == list(classes):
            return
        _check_speakers(path, trained.classes, classes)
        ours, theirs = shared_classes(classes, trained.classes)
        self.head = build_head(trained.config, trained.model.embed_dim, len(ours)).eval()
        self.head.adopt(trained.head, torch.arange(len(ours)), theirs)
        self.classes, self.place = ours, torch.zeros(len(classes), dtype=torch.long)
        self.place[ours] = torch.arange(len(ours))
        log.info(
            "%s: of the teacher's %d classes and the student's %d both know %d; label KD is over these, on their crops",
            path, len(trained.classes), len(classes), len(ours),
        )  # fmt: skip

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As in `MarginHead`. For crops of a class that the teacher lacks, the margin is on an arbitrary class."""
        if self.place is not None:
            labels = torch.where(labels == UNLABELLED, labels, self.place[labels])
        return self.head.cosines_and_logits(embeddings, labels)


def _check_speakers(path: str | Path, theirs: Sequence[str], ours: Sequence[str]) -> None:
    different = {unperturbed(name) for name in theirs} ^ {unperturbed(name) for name in ours}
    if different or not set(theirs) & set(ours):
        example = f" (such as {min(different)})" if different else ": they are at other speeds"
        raise InputError(
            f"{path}: the teacher's head knows {len(theirs)} speakers, the student {len(ours)}, and they are not the "
            f"same{example}; train the teacher on this training set"
        )
