"""What a network and its head give for a batch, as the KD terms see it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wespeaker_lite.models.activations import Activations, Attention


@dataclass
class Outputs:
    """Outputs of a student or a teacher; logits are None where the teacher has no head.

    embedding: (B, D). cosine_logits: (B, classes), the margin-free scaled cosines. margin_logits: (B, classes), with
    the margin of the current epoch (a teacher's: of its last) on the labelled class. maps and attention: as in
    `Activations`, where a term looks inside; empty otherwise. classes: the student's numbers of a teacher's classes,
    (n,) int64, where its logits are (B, n); None where they are of the very classes of the student.
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
    """Bring crops (B, T, F) through a network and its head, if it has one; `inside` asks for maps and attention."""
    shown = network.activations(feats) if inside else Activations(network(feats))
    return Outputs(shown.embedding, *logits_of(head, shown.embedding, labels), shown.maps, shown.attention)


@torch.no_grad()
def outputs_for_silence(
    network: nn.Module, frames: int, num_mels: int, head: nn.Module | None = None, inside: bool = True
) -> Outputs:
    """What a network shows, in evaluation mode, for one crop without sound: what a term takes its sizes from."""
    training = network.training
    place = next(network.parameters()).device
    silence, nobody = torch.zeros(1, frames, num_mels, device=place), torch.zeros(1, dtype=torch.long, device=place)
    try:
        return outputs_of(network.eval(), head, silence, nobody, inside)
    finally:
        network.train(training)


def logits_of(head: nn.Module | None, embedding: Tensor, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Bring an embedding (B, D) through a head, if there is one: margin-free scaled cosines, and logits with margin."""
    if head is None:
        return None, None
    cosines, margin_logits = head.cosines_and_logits(embedding, labels)
    return head.scale * cosines, margin_logits
