"""The x-vector TDNN against its definition: layers with a context of frames, statistics pooling, an affine layer."""

import torch

from wespeaker_lite import models


def test_a_frame_has_the_context_of_the_paper():
    """Frame by frame without padding: t - 2 to t + 2; t - 2, t, t + 2; t - 3, t, t + 3; t."""
    torch.manual_seed(0)
    model = models.build("xvector", {"channels": 4, "pooling_channels": 5, "embed_dim": 3}, 6).double().eval()
    feats = torch.randn(1, 20, 6, dtype=torch.float64)
    with torch.no_grad():
        rows = dict(enumerate(feats[0]))
        for layer, offsets in zip(model.layers, [(-2, -1, 0, 1, 2), (-2, 0, 2), (-3, 0, 3), (0,)], strict=True):
            conv, _, norm = layer
            norm.running_mean.normal_()
            rows = {
                t: ((conv.weight * torch.stack([rows[t + o] for o in offsets], 1)).sum((1, 2)) + conv.bias).relu()
                for t in rows
                if all(t + o in rows for o in offsets)
            }
            rows = {t: (row - norm.running_mean) / (norm.running_var + norm.eps).sqrt() for t, row in rows.items()}
        assert list(rows) == list(range(7, 13))
        shown = model.activations(feats)
        for t, row in rows.items():
            torch.testing.assert_close(shown.maps[-1][0, :, t], row)
        last = model.widen(shown.maps[-1])
        pooled = torch.cat((last.mean(-1), last.std(-1, correction=0).clamp(min=3e-4)), 1)
        torch.testing.assert_close(shown.embedding, model.embedding(pooled))
