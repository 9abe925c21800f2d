"""What a network and its head give for a batch, as the KD terms see it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Outputs:
    """Outputs of a student or a teacher; logits are None where the teacher has no head.

    embedding: (B, D). cosine_logits: (B, classes), the margin-free scaled cosines. margin_logits: (B, classes), with
    the margin of the current epoch on the labelled class.
    """

    embedding: Tensor
    cosine_logits: Tensor | None = None
    margin_logits: Tensor | None = None
