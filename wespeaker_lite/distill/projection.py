"""What the terms share that bring the student's embedding to the teacher's width."""

from itertools import pairwise

from torch import nn

from wespeaker_lite.distill.term import Partners


def projector(partners: Partners, depth: int, always: bool = False) -> nn.Module:
    """A learned map from the student's embedding (B, ours) to the teacher's width (B, theirs); not deployed.

    depth: of its linear layers, each but the last followed by batch norm and ReLU at the teacher's width, so that the
    student need not mimic what a deeper one makes up (Chen et al., NeurIPS 2022, arXiv 2210.15274). One of depth 1 is
    left out where widths are equal, unless `always`.
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
