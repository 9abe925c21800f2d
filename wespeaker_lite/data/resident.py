"""The features of a whole corpus in the memory of a device, where crops are made."""

import logging
from collections.abc import Iterable

import numpy as np
import torch

from wespeaker_lite.kaldi.arks import ByteMatrix

log = logging.getLogger(__name__)

_AT_ONCE = 1 << 26  # bytes per copy to the device


class ResidentFeatures:
    """The bytes of all utterances, (all frames, F) uint8 on a device, and low and step of each utterance."""

    def __init__(self, matrices: Iterable[ByteMatrix], num_frames: np.ndarray, mels: int, device: torch.device) -> None:
        """Copy the matrices, one for each of `num_frames` (N,), to the device."""
        self.device = device
        self.frames = torch.from_numpy(num_frames).to(device)
        self.first = self.frames.cumsum(0) - self.frames
        self.bytes = torch.empty((int(num_frames.sum()), mels), dtype=torch.uint8, device=device)
        scales = np.empty((len(num_frames), 2), dtype=np.float32)
        flat, filled, waiting, size = self.bytes.view(-1), 0, [], 0
        for number, matrix in enumerate(matrices):
            scales[number] = matrix.low, matrix.step
            waiting.append(matrix.data)
            size += matrix.data.size
            if size >= _AT_ONCE or number + 1 == len(num_frames):
                flat[filled : filled + size] = torch.from_numpy(np.concatenate(waiting)).to(device)
                filled, waiting, size = filled + size, [], 0
        self.low, self.step = torch.from_numpy(scales).to(device).unbind(1)
        log.info("the features, %.1f GB, are in the memory of %s (runtime.resident_gb)", flat.numel() / 1e9, device)

    def read(self, utterances: np.ndarray, starts: np.ndarray, frames: int) -> tuple[torch.Tensor, ...]:
        """Make crops as `CropDataset` reads them: (B, frames, F) uint8, low and step (B, 1, 1).

        The crop of a shorter utterance begins at 0 and repeats it.
        """
        which, begins = (torch.from_numpy(numbers).to(self.device) for numbers in (utterances, starts))
        places = begins[:, None] + torch.arange(frames, device=self.device)
        places = self.first[which][:, None] + places % self.frames[which][:, None]
        raw = self.bytes.index_select(0, places.flatten()).view(len(which), frames, -1)
        return raw, self.low[which].view(-1, 1, 1), self.step[which].view(-1, 1, 1)
