"""Distances of maps (B, C, bands, frames), averaged over the batch, for the terms that compare maps."""

import torch
from torch import Tensor
from torch.nn import functional as F


def as_planes(maps: Tensor) -> Tensor:
    """Reshape maps (B, C, T) to one band (B, C, 1, T); leave maps with bands unchanged.

    The memory format is channels-last: on a CPU, max pooling is 5 times as fast, and norms and convolutions are faster.
    """
    planes = maps.unsqueeze(2) if maps.dim() == 3 else maps
    return planes.contiguous(memory_format=torch.channels_last)


def attention_transfer(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared difference of energy maps of unit norm, summed over positions (Zagoruyko and Komodakis, ICLR 2017)."""
    return (_energy(ours) - _energy(theirs)).square().sum(dim=1).mean()


def _energy(maps: Tensor) -> Tensor:
    # The squared norm over channels needs one pass over the maps. It is proportional to the mean square, so that
    # normalisation gives the same.
    return F.normalize(torch.linalg.vector_norm(maps, dim=1).square().flatten(1), dim=1)


def cosine(ours: Tensor, theirs: Tensor) -> Tensor:
    """1 - cos of the channels at a position, averaged over positions."""
    return (1.0 - F.cosine_similarity(ours, theirs, dim=1)).mean()


def normalised_mse(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference after normalisation of each channel to mean 0 and variance 1 over batch and positions.

    It equals 2 - 2 * Pearson's correlation, averaged over channels, which is twice the loss of PKD (Cao et al., NeurIPS
    2022, arXiv 2207.02039).
    """
    return F.mse_loss(_normalised(ours), _normalised(theirs))


def _normalised(maps: Tensor) -> Tensor:
    return F.batch_norm(maps, None, None, training=True)
