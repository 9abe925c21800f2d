"""Distances of maps (B, C, bands, frames), shared by the terms that look at them; means over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def as_planes(maps: Tensor) -> Tensor:
    """Maps (B, C, T) as planes of one band (B, C, 1, T), so that one code serves both kinds.

    Channels go innermost: on a CPU max pooling is then 5 times as fast, and norms and convolutions gain too.
    """
    planes = maps.unsqueeze(2) if maps.dim() == 3 else maps
    return planes.contiguous(memory_format=torch.channels_last)


def attention_transfer(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared difference of unit-length energy maps, summed over positions (Zagoruyko and Komodakis, ICLR 2017)."""
    return (_energy(ours) - _energy(theirs)).square().sum(dim=1).mean()


def _energy(maps: Tensor) -> Tensor:
    # The length of the channels at a position, squared: one pass over the maps, and the mean's divisor cancels out.
    return F.normalize(torch.linalg.vector_norm(maps, dim=1).square().flatten(1), dim=1)


def cosine(ours: Tensor, theirs: Tensor) -> Tensor:
    """1 - cos of the channels at a position, averaged over positions."""
    return (1.0 - F.cosine_similarity(ours, theirs, dim=1)).mean()


def normalised_mse(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference after each channel got mean 0 and variance 1 over batch and positions.

    It is 2 - 2 * Pearson's correlation, a mean over channels; half of it is PKD (Cao et al., NeurIPS 2022, arXiv
    2207.02039).
    """
    return F.mse_loss(_normalised(ours), _normalised(theirs))


def _normalised(maps: Tensor) -> Tensor:
    return F.batch_norm(maps, None, None, training=True)
