"""The projection of the student's embedding to the size of the teacher's."""

from itertools import pairwise

from torch import nn

from wespeaker_lite.distill.term import Partners


def projector(partners: Partners, depth: int, always: bool = False) -> nn.Module:
    """Build a learned projection of embeddings, (B, ours) -> (B, theirs). It is not deployed.

    depth: number of linear layers, with batch norm and ReLU between them (Chen et al., NeurIPS 2022, arXiv 2210.15274).
    With depth 1 and equal sizes, there is no projection, unless `always`.
    """
    ours, theirs = partners.student.embedding.shape[1], partners.teacher.embedding.shape[1]
    if depth == 1 and ours == theirs and not always:
        return nn.Identity()
    widths = [ours, *[theirs] * depth]
    layers = [nn.Linear(*pair, bias=False) for pair in pairwise(widths)]
    if depth == 1:
        return layers[0]
    inner = (part for layer in layers[:-1] for part in (layer, nn.BatchNorm1d(theirs), nn.ReLU(inplace=True)))
    return nn.Sequential(*inner, layers[-1])
