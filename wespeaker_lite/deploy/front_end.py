"""The front end of a network, from samples to features, and its differences from that of sherpa-onnx."""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from wespeaker_lite.audio.fbank import FbankConfig, fbank
from wespeaker_lite.kaldi.arks import as_in_ark

# The features of sherpa-onnx for speaker models. It also subtracts the mean over time.
SHERPA = FbankConfig(high_freq=-400.0, snip_edges=False)


@dataclass(frozen=True)
class FrontEnd:
    """Samples (n,) in [-1, 1] -> features (T, num_mels).

    cmn: subtract the mean over time. in_ark: round values to one byte, as in the arks of stage 2. full_scale: factor of
    the samples. The default gives the range of 16-bit integers.
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
    """Options in which sherpa-onnx differs from a front end, such as {"high_freq": "0.0 here, -400.0 there"}."""
    pairs = [(f.name, getattr(front_end.features, f.name), getattr(SHERPA, f.name)) for f in fields(FbankConfig)]
    pairs.append(("cmn", front_end.cmn, True))
    return {name: f"{ours} here, {theirs} there" for name, ours, theirs in pairs if ours != theirs}
