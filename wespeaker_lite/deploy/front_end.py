"""From samples to what a network reads, and how that differs from what sherpa-onnx computes on a device."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from wespeaker_lite.audio.fbank import FbankConfig, fbank
from wespeaker_lite.kaldi.arks import as_in_ark

# What sherpa-onnx computes for a speaker model; it also subtracts the mean of the recording.
SHERPA = FbankConfig(high_freq=-400.0, snip_edges=False)


@dataclass(frozen=True)
class FrontEnd:
    """Samples (n,) in [-1, 1] -> features (T, num_mels).

    cmn: the mean over time is subtracted. in_ark: values are those that an ark of stage 2 holds, one byte each. full
    scale: what samples of 1 become; ours are those of 16-bit integers.
    """

    features: FbankConfig
    cmn: bool = True
    in_ark: bool = True
    full_scale: float = 32768.0

    def __call__(self, samples: np.ndarray) -> Tensor:
        values = fbank(samples * np.float32(self.full_scale / 32768.0), self.features)
        feats = torch.from_numpy(as_in_ark(values) if self.in_ark else values)
        return feats - feats.mean(0) if self.cmn else feats


def sherpa_differences(front_end: FrontEnd) -> dict[str, str]:
    """Where sherpa-onnx differs from a front end, such as {"high_freq": "0.0 here, -400.0 there"}."""
    pairs = [(f.name, getattr(front_end.features, f.name), getattr(SHERPA, f.name)) for f in fields(FbankConfig)]
    pairs.append(("cmn", front_end.cmn, True))
    return {name: f"{ours} here, {theirs} there" for name, ours, theirs in pairs if ours != theirs}
