"""The front end as a graph: framing, window and Fourier transform are one convolution with the samples."""

import numpy as np
import torch
from torch import Tensor

from wespeaker_lite.audio.fbank import FLOOR, FbankConfig, mel_banks, windowed_frames
from wespeaker_lite.deploy.graphs.builder import Graph


def fbank(graph: Graph, samples: str, config: FbankConfig, cmn: bool) -> str:
    """Samples (B, n) in [-1, 1] -> log mel energies (B, T, num_mels), less their mean over time with `cmn`; no dither.

    The values are those of `features.fbank`, to rounding.
    """
    signal = samples if config.snip_edges else _mirrored(graph, samples, config)
    filters, banks = _filters(config)
    spectrum = graph.conv(graph.add("Unsqueeze", signal, np.array([1])), filters, None, strides=[config.frame_shift])
    energies = graph.add("MatMul", banks, graph.add("Mul", spectrum, spectrum))
    feats = graph.add("Log", graph.add("Max", energies, np.array(FLOOR)))
    feats = graph.add("Sub", feats, graph.mean(feats, -1)) if cmn else feats
    return graph.add("Transpose", feats, perm=[0, 2, 1])


def _filters(config: FbankConfig) -> tuple[Tensor, Tensor]:
    """What the samples are convolved with, (2K, 1, frame_length), and the mel bands (num_mels, 2K) of the squares.

    K frequencies are in a mel band; of each there is a real and an imaginary part.
    """
    # A frame becomes its spectrum by linear steps: what they make of each unit vector is a column of their matrix.
    frames = windowed_frames(torch.eye(config.frame_length, dtype=torch.float64), config)
    banks = mel_banks(config).double()
    heard = banks.any(1)
    spectrum = torch.fft.rfft(frames)[:, heard].T * 32768.0
    return torch.cat((spectrum.real, spectrum.imag))[:, None], torch.cat((banks[heard], banks[heard])).T


def _mirrored(graph: Graph, samples: str, config: FbankConfig) -> str:
    """Samples (B, n), extended at both ends by their mirror image, so that frames are centred every frame shift."""
    shift, length, before = config.frame_shift, config.frame_length, config.overhang
    size = graph.size(samples, 1)
    count = graph.add("Div", graph.add("Add", size, np.array([shift // 2])), np.array([shift]))
    whole = graph.add("Mul", count, np.array([shift]))
    after = graph.add("Sub", graph.add("Add", whole, np.array([length - shift - before])), size)
    after = graph.add("Max", after, np.zeros(1, np.int64))
    axis, back, last = np.array([1]), np.array([-1]), np.array([-1])
    end = graph.add("Slice", samples, last, graph.add("Sub", last, after), axis, back)
    if before <= 0:
        return graph.add("Concat", graph.add("Slice", samples, np.array([-before]), size, axis), end, axis=1)
    start = graph.add("Slice", samples, np.array([before - 1]), np.array([-(1 << 62)]), axis, back)
    return graph.add("Concat", start, samples, end, axis=1)
