"""ReDimNet's layers against torch's own and plain formulas."""

import torch
from torch import nn

from wespeaker_lite import models
from wespeaker_lite.models.channel_norm import ChannelNorm
from wespeaker_lite.models.redimnet import LearnedMean, Transformer, as_maps, as_sequence

SMALL = {"channels": 2, "strides": [1, 2], "depth": [1, 1], "expansion": [1, 2], "reduction": [5, 0], "embed_dim": 6}


def test_the_transformer_equals_that_of_torch():
    torch.manual_seed(0)
    ours = Transformer(12).double()
    theirs = nn.TransformerEncoderLayer(
        12, 4, 12, dropout=0.0, activation=nn.GELU("tanh"), batch_first=True, dtype=torch.float64
    )
    names = {
        "self_attn.out_proj": ours.out,
        "linear1": ours.widen,
        "linear2": ours.narrow,
        "norm1": ours.attention_norm,
        "norm2": ours.norm,
    }
    state = {f"{name}.{key}": value for name, layer in names.items() for key, value in layer.state_dict().items()}
    for key in ("weight", "bias"):
        state[f"self_attn.in_proj_{key}"] = torch.cat([getattr(p, key) for p in (ours.query, ours.key, ours.value)])
    theirs.load_state_dict(state)
    maps = torch.randn(2, 12, 7, dtype=torch.float64)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    torch.testing.assert_close(ours(maps, None), theirs(maps.mT).mT)
    expected = theirs(maps.mT, src_key_padding_mask=~mask).mT
    torch.testing.assert_close(ours(maps, mask)[1, :, :4], expected[1, :, :4])


def test_sequences_and_maps_have_the_same_values():
    maps = torch.randn(2, 3, 4, 5)
    sequence = as_sequence(maps)
    assert torch.equal(sequence[:, 2 * 3 + 1], maps[:, 1, 2])  # bands outside, channels inside
    assert torch.equal(as_maps(sequence, 3), maps)
    # Two bands of 3 channels are one of 6, for the next stage.
    assert torch.equal(as_maps(sequence, 6)[:, 4, 1], maps[:, 1, 3])


def test_a_learned_mean_has_weights_that_sum_to_1_for_each_channel():
    torch.manual_seed(0)
    layer = LearnedMean(3, 4)
    sequences = [torch.randn(2, 4, 5) for _ in range(3)]
    torch.testing.assert_close(layer(sequences), sum(sequences) / 3)
    nn.init.normal_(layer.scores)
    weights = layer.scores.exp() / layer.scores.exp().sum(0)
    torch.testing.assert_close(layer(sequences), sum(w * s for w, s in zip(weights, sequences, strict=True)))


def test_a_channel_norm_is_computed_at_each_position():
    torch.manual_seed(0)
    norm = ChannelNorm(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    maps = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    column = maps[1, :, 2, 3]
    expected = (column - column.mean()) / (column.var(correction=0) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(maps)[1, :, 2, 3], expected)


def test_the_input_of_a_stage_is_the_mean_of_all_previous_outputs():
    torch.manual_seed(0)
    model = models.build("redimnet", SMALL, 20).eval()
    feats = torch.randn(1, 11, 20)
    nn.init.normal_(model.means[0].scores)
    with torch.no_grad():
        stem = as_sequence(model.stem(feats.mT[:, None]))
        first = model.stages[0](stem, None)
        weights = model.means[0].scores.softmax(0)
        second = model.stages[1](weights[0] * stem + weights[1] * first, None)
        shown = model.activations(feats)
    torch.testing.assert_close(shown.maps[0], as_maps(first, 2))
    torch.testing.assert_close(shown.maps[1], as_maps(second, 4))
