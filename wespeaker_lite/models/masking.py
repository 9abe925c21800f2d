"""Which frames of a padded batch are speech, so that padding changes no embedding (in eval mode, exact to rounding)."""

import torch
from torch import Tensor

from wespeaker_lite.core.errors import InputError


def time_mask(lengths: Tensor, frames: int) -> Tensor:
    """Mark the valid frames: lengths (B,) int64 -> (B, frames) bool, True before each length.

    A convolution of odd kernel, half padding and stride s turns the mask into `mask[:, ::s]`.

    Raises:
        InputError: where a length is below 1 or above `frames`.
    """
    wrong = (lengths < 1) | (lengths > frames)
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise InputError(f"utterance {index} of the batch has {int(lengths[index])} frames, outside 1 to {frames}")
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def apply_mask(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the padding of maps (B, ..., T) by a mask (B, T); without mask the maps come back as they are.

    Filling instead of multiplying: padding may hold anything, and 0 times infinity is not 0.
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
    """The maps in float32 where autocast made them shorter, as they are otherwise."""
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()
