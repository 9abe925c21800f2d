"""The graph of the front end. Framing, window and Fourier transform are one convolution of the samples."""

import numpy as np
import torch
from torch import Tensor

from wespeaker_lite.audio.fbank import FLOOR, FbankConfig, mel_banks, windowed_frames
from wespeaker_lite.deploy.graphs.builder import Graph


def fbank(graph: Graph, samples: str, config: FbankConfig, cmn: bool) -> str:
    """Samples (B, n) in [-1, 1] -> log mel energies (B, T, num_mels), minus their mean if `cmn`; no dither.

    The values equal those of `audio.fbank` up to rounding.
    """
    signal = samples if config.snip_edges else _mirrored(graph, samples, config)
    filters, banks = _filters(config)
    spectrum = graph.conv(graph.add("Unsqueeze", signal, np.array([1])), filters, None, strides=[config.frame_shift])
    energies = graph.add("MatMul", banks, graph.add("Mul", spectrum, spectrum))
    feats = graph.add("Log", graph.add("Max", energies, np.array(FLOOR)))
    feats = graph.add("Sub", feats, graph.mean(feats, -1)) if cmn else feats
    return graph.add("Transpose", feats, perm=[0, 2, 1])


def _filters(config: FbankConfig) -> tuple[Tensor, Tensor]:
    """Convolution kernels (2K, 1, frame_length) for the samples, and mel bands (num_mels, 2K) for the squared results.

    K is the number of frequencies in the mel bands. Each has a real and an imaginary part.
    """
    # The steps from a frame to its spectrum are linear. Applied to unit vectors, they give the columns of their matrix.
    frames = windowed_frames(torch.eye(config.frame_length, dtype=torch.float64), config)
    banks = mel_banks(config).double()
    heard = banks.any(1)
    spectrum = torch.fft.rfft(frames)[:, heard].T * 32768.0
    return torch.cat((spectrum.real, spectrum.imag))[:, None], torch.cat((banks[heard], banks[heard])).T


def _mirrored(graph: Graph, samples: str, config: FbankConfig) -> str:
    """Mirror samples (B, n) at both ends, so that each frame is centred in its frame shift."""
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
