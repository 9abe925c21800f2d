"""Frozen teachers: a trained network that sees the student's crops, or embeddings that were made once per utterance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wespeaker_lite import trained_model
from wespeaker_lite.data.arks import read_array, read_scp
from wespeaker_lite.distill.outputs import Outputs, logits_of, outputs_of
from wespeaker_lite.errors import InputError


class NetworkTeacher(nn.Module):
    """A trained network and, where it has one, its head; frozen, in evaluation mode, without gradients."""

    def __init__(self, path: str | Path, num_mels: int, classes: Sequence[str]) -> None:
        """Load the teacher.

        Raises:
            InputError: where its features are not the student's, or its head was trained on other speakers.
        """
        super().__init__()
        trained = trained_model.load(path)
        if trained.num_mels != num_mels:
            raise InputError(f"{path}: the teacher reads {trained.num_mels} mel bins, the student {num_mels}")
        self.model, self.head = trained.model, trained.head
        self.embed_dim = trained.model.embed_dim
        if self.head is not None:
            _check_classes(path, trained.classes, classes)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> Outputs:
        """Crops (B, T, F) and labels (B,) to the teacher's outputs; the indices of utterances are not needed."""
        return outputs_of(self.model, self.head, feats, labels, inside)


class ArkTeacher(nn.Module):
    """Embeddings of whole utterances, read once; with a head where the network that made them is at hand."""

    def __init__(self, scp: str | Path, utterances: Sequence[str], head: nn.Module | None = None) -> None:
        """Read the embeddings of all training utterances, (N, D) float32.

        Raises:
            InputError: naming utterances that have no embedding.
        """
        super().__init__()
        places = read_scp(scp)
        missing = [utterance for utterance in utterances if utterance not in places]
        if missing:
            raise InputError(f"{scp}: no embedding of {len(missing)} training utterances, such as {missing[0]}")
        table = np.stack([read_array(utterance, places[utterance]) for utterance in utterances])
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.head = head.requires_grad_(False).eval() if head is not None else None
        self.embed_dim = table.shape[1]

    @torch.no_grad()
    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> Outputs:
        """Indices of utterances (B,) and labels (B,) to the teacher's outputs; there is no inside to look at."""
        embedding = self.table[indices]
        return Outputs(embedding, *logits_of(self.head, embedding, labels))


def _check_classes(path: str | Path, theirs: Sequence[str], ours: Sequence[str]) -> None:
    if list(theirs) == list(ours):
        return
    different = sorted(set(theirs) ^ set(ours))
    example = f" (such as {different[0]})" if different else " in order"
    raise InputError(
        f"{path}: the teacher's head knows {len(theirs)} speakers, the student {len(ours)}, and they are not the same"
        f"{example}; train the teacher on this training set"
    )
