"""BC-CMT in plain PyTorch layers on (B, C, F, T), as the reference for tests and timing of the fast layers.

`load` copies the weights of a `bc_cmt.Model`; both must then give the same results.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.models import bc_cmt


class PlainSubSpectralNorm(nn.Module):
    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.bands = bands
        self.norm = nn.BatchNorm2d(channels * bands)

    def forward(self, maps: Tensor) -> Tensor:
        batch, channels, bins, frames = maps.shape
        return self.norm(maps.reshape(batch, channels * self.bands, bins // self.bands, frames)).view(maps.shape)

    def load(self, norm: nn.Module) -> None:
        for name in ("weight", "bias", "running_mean", "running_var"):  # ours are (bands, channels)
            getattr(self.norm, name).data.copy_(getattr(norm, name).data.T.flatten())


def depthwise(channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False)


class PlainResidual(nn.Module):
    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.freq, self.ssn = depthwise(channels, (3, 1)), PlainSubSpectralNorm(channels, bands)
        self.time, self.norm = depthwise(channels, (1, 3)), nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.ssn(self.freq(maps))
        return maps + inner + F.silu(self.norm(self.time(inner.mean(2, keepdim=True))))

    def load(self, layer: nn.Module) -> None:
        self.freq.weight.data.copy_(layer.freq.taps.data.T[:, None, :, None])
        self.ssn.load(layer.freq.norm)
        self.time.weight.data.copy_(layer.time.taps.data.T[:, None, None, :])
        self.norm.load_state_dict(layer.time.norm.state_dict())


def load_grouped(conv: nn.Conv2d, layer: nn.Module) -> None:
    conv.weight.data.copy_(layer.weight.data.transpose(1, 2).reshape(conv.weight.shape))
    conv.bias.data.copy_(layer.bias.data.flatten())


def heads(maps: Tensor, count: int) -> Tensor:
    return maps.flatten(2).unflatten(1, (count, -1)).transpose(2, 3)


class PlainAttention(nn.Module):
    """Attention over time (`reduction` 0), or over the map with keys and values downsampled by `reduction`."""

    def __init__(self, channels: int, config: bc_cmt.Config, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = config.heads, reduction
        self.norm = nn.BatchNorm2d(channels)
        if not reduction:
            self.freq, self.ssn = depthwise(channels, (3, 1)), PlainSubSpectralNorm(channels, config.bands)
        if reduction > 1:
            self.shrink = nn.Conv2d(channels, channels, reduction, reduction, groups=channels)
            self.shrink_norm = nn.BatchNorm2d(channels)
        self.query, self.key, self.value, self.out = (
            nn.Conv2d(channels, channels, 1, groups=config.groups) for _ in range(4)
        )

    def forward(self, maps: Tensor) -> Tensor:
        seen = self.norm(maps)
        if not self.reduction:
            seen = self.ssn(self.freq(seen))
            maps, seen = maps + seen, seen.mean(2, keepdim=True)
        shrunk = self.shrink_norm(self.shrink(seen)) if self.reduction > 1 else seen
        query, key, value = (
            heads(conv(part), self.heads)
            for conv, part in ((self.query, seen), (self.key, shrunk), (self.value, shrunk))
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(2, 3).reshape(seen.shape)
        return maps + self.out(attended)

    def load(self, layer: nn.Module) -> None:
        self.norm.load_state_dict(layer.norm.state_dict())
        for name in ("query", "key", "value", "out"):
            load_grouped(getattr(self, name), getattr(layer, name))
        if not self.reduction:
            self.freq.weight.data.copy_(layer.freq.taps.data.T[:, None, :, None])
            self.ssn.load(layer.freq.norm)
        if self.reduction > 1:
            self.shrink.load_state_dict(layer.shrink.state_dict())
            self.shrink_norm.load_state_dict(layer.shrink_norm.state_dict())


class PlainFeedForward(nn.Module):
    def __init__(self, channels: int, config: bc_cmt.Config) -> None:
        super().__init__()
        width = config.ffn_ratio * channels
        self.widen, self.widen_norm = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.residual = PlainResidual(width, config.bands)
        self.narrow, self.norm = nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        wide = self.residual(F.gelu(self.widen_norm(self.widen(maps))))
        return maps + self.norm(self.narrow(wide))

    def load(self, layer: nn.Module) -> None:
        self.widen.weight.data.copy_(layer.widen.weight.data[:, :, None, None])
        self.widen_norm.load_state_dict(layer.widen.norm.state_dict())
        self.residual.load(layer.residual)
        self.narrow.weight.data.copy_(layer.narrow.weight.data[:, :, None, None])
        self.norm.load_state_dict(layer.norm.state_dict())


class PlainBlock(nn.Module):
    def __init__(self, channels: int, config: bc_cmt.Config, reduction: int) -> None:
        super().__init__()
        self.local = PlainResidual(channels, config.bands)
        self.attention = PlainAttention(channels, config, reduction if config.attention == "2d" else 0)
        self.feed_forward = PlainFeedForward(channels, config)

    def forward(self, maps: Tensor) -> Tensor:
        return self.feed_forward(self.attention(self.local(maps)))

    def load(self, block: nn.Module) -> None:
        for name in ("local", "attention", "feed_forward"):
            getattr(self, name).load(getattr(block, name))


class PlainNetwork(nn.Module):
    """BC-CMT of a `bc_cmt.Config`: feats (B, T, num_mels) -> embeddings (B, embed_dim)."""

    def __init__(self, config: bc_cmt.Config) -> None:
        super().__init__()
        self.config = config
        width, channels = config.stem_channels, config.stem_channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, config.stem_stride, 1, bias=False), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.GELU(),
        )  # fmt: skip
        self.stages = nn.ModuleList()
        for stage, (out, stride) in enumerate(zip(config.channels, config.strides, strict=True)):
            patch = [nn.Conv2d(channels, out, (stride, 1), (stride, 1), bias=False), nn.BatchNorm2d(out)]
            blocks = [PlainBlock(out, config, config.reduction[stage]) for _ in range(config.depth[stage])]
            self.stages.append(nn.Sequential(*patch, *blocks))
            channels = out
        self.score = nn.Conv2d(channels, channels, 1)
        self.hidden = nn.Conv1d(2 * channels, config.pool_bottleneck, 1)
        self.weights = nn.Conv1d(config.pool_bottleneck, 2 * channels, 1)
        self.norm = nn.BatchNorm1d(4 * channels)
        self.embedding = nn.Linear(4 * channels, config.embed_dim)
        self.embedding_norm = nn.BatchNorm1d(config.embed_dim)

    def forward(self, feats: Tensor) -> Tensor:
        maps = self.stem(feats.transpose(1, 2).unsqueeze(1))
        for stage in self.stages:
            maps = stage(maps)
        frames = moments(maps, self.score(maps).softmax(2), 2)
        pooled = moments(frames, self.weights(torch.tanh(self.hidden(frames))).softmax(2), 2)
        return self.embedding_norm(self.embedding(self.norm(pooled)))

    def load(self, model: bc_cmt.Model) -> "PlainNetwork":
        """Copy the weights and running statistics of a model."""
        stem = model.stem
        for index, layer in ((0, stem.conv1), (1, stem.norm1), (3, stem.conv2), (4, stem.norm2)):
            self.stem[index].load_state_dict(layer.state_dict())
        for plain, patch, blocks in zip(self.stages, model.patches, model.stages, strict=True):
            plain[0].weight.data.copy_(
                patch.linear.weight.data.unflatten(1, (patch.stride, -1)).transpose(1, 2).unsqueeze(-1)
            )
            plain[1].load_state_dict(patch.linear.norm.state_dict())
            for mine, block in zip(list(plain)[2:], blocks, strict=True):
                mine.load(block)
        self.score.weight.data.copy_(model.frequency_pooling.score.weight.data[:, :, None, None])
        self.score.bias.data.copy_(model.frequency_pooling.score.bias.data)
        self.hidden.load_state_dict(model.pooling.hidden.state_dict())
        self.weights.load_state_dict(model.pooling.score.state_dict())
        for name in ("norm", "embedding", "embedding_norm"):
            getattr(self, name).load_state_dict(getattr(model, name).state_dict())
        return self


def moments(maps: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Weighted mean and standard deviation over an axis, concatenated over channels."""
    mean = (weights * maps).sum(axis, keepdim=True)
    deviation = (weights * (maps - mean).square()).sum(axis).clamp(min=3e-4**2).sqrt()
    return torch.cat((mean.squeeze(axis), deviation), 1)
