"""The outputs of a network and its head for a batch, which are the inputs of KD terms."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wespeaker_lite.models.activations import Activations, Attention


@dataclass
class Outputs:
    """Outputs of a student or a teacher. Logits are None if the teacher has no head.

    embedding: (B, D). cosine_logits: (B, classes), the scaled cosines without margin. margin_logits: (B, classes), with
    the margin of the current epoch (for a teacher, of its last one) on the labelled class, if a crop has a label. maps,
    attention: as in `Activations`; empty if no term needs them. classes: None if the logits are over the student's
    classes. Otherwise the logits are (B, n), and `classes` (n,) int64 has the student's indices of the teacher's
    classes.
    """

    embedding: Tensor
    cosine_logits: Tensor | None = None
    margin_logits: Tensor | None = None
    maps: list[Tensor] = field(default_factory=list)
    attention: list[list[Attention]] = field(default_factory=list)
    classes: Tensor | None = None


def outputs_of(
    network: nn.Module, head: nn.Module | None, feats: Tensor, labels: Tensor, inside: bool = False
) -> Outputs:
    """Run crops (B, T, F) through a network and its head, if it has one. `inside` adds maps and attention."""
    activations = network.activations(feats) if inside else Activations(network(feats))
    return Outputs(
        activations.embedding, *logits_of(head, activations.embedding, labels), activations.maps, activations.attention
    )


@torch.no_grad()
def outputs_for_silence(
    network: nn.Module, frames: int, num_mels: int, head: nn.Module | None = None, inside: bool = True
) -> Outputs:
    """Run one crop of zeros through a network in evaluation mode. Terms get their sizes from these outputs."""
    training = network.training
    place = next(network.parameters()).device
    silence, label = torch.zeros(1, frames, num_mels, device=place), torch.zeros(1, dtype=torch.long, device=place)
    try:
        return outputs_of(network.eval(), head, silence, label, inside)
    finally:
        network.train(training)


def logits_of(head: nn.Module | None, embedding: Tensor, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Run embeddings (B, D) through a head, if there is one: scaled cosines without margin, and logits with margin."""
    if head is None:
        return None, None
    cosines, margin_logits = head.cosines_and_logits(embedding, labels)
    return head.scale * cosines, margin_logits
