"""Masks of padded batches. In eval mode, padding does not change an embedding, except for rounding."""

import torch
from torch import Tensor

from wespeaker_lite.core.errors import InputError


def time_mask(lengths: Tensor, frames: int) -> Tensor:
    """Mark the valid frames: lengths (B,) int64 -> (B, frames) bool, True before each length.

    After a convolution with odd kernel, half padding and stride s, the mask is `mask[:, ::s]`.

    Raises:
        InputError: if a length is below 1 or above `frames`.
    """
    wrong = (lengths < 1) | (lengths > frames)
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise InputError(f"utterance {index} of the batch has {int(lengths[index])} frames, outside 1 to {frames}")
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def apply_mask(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Set the padding of maps (B, ..., T) to zero by a mask (B, T). Without mask, return the maps unchanged.

    Padding is filled, not multiplied by 0, because 0 times infinity is not 0.
    """
    if mask is None:
        return maps
    return maps.masked_fill(expand_mask(mask, maps.dim()).logical_not(), 0.0)


def mean_over_time(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the valid frames: maps (B, ..., T), mask (B, T) or None -> (B, ..., 1)."""
    if mask is None:
        return maps.mean(dim=-1, keepdim=True)
    count = expand_mask(mask, maps.dim()).sum(dim=-1, keepdim=True)
    return apply_mask(maps, mask).sum(dim=-1, keepdim=True) / count


def expand_mask(mask: Tensor, dims: int) -> Tensor:
    """A view of the mask (B, T) as (B, 1, ..., T) with `dims` dimensions."""
    return mask.view(mask.shape[0], *[1] * (dims - 2), mask.shape[1])


def full_precision(maps: Tensor) -> Tensor:
    """Convert half-precision maps to float32; return others unchanged."""
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
