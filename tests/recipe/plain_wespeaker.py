"""Simple reimplementations of two wespeaker networks, with wespeaker's parameter names, to test imported weights.

x: (B, T, num_mels). Standard deviations are unbiased. The input of an ECAPA block is only the block before it, and the
blocks do not change the last group.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if before != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + self.shortcut(x)).relu()


class ResNet18(nn.Module):
    def __init__(self, width: int, mels: int, embed_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for number in range(4):
            channels = width * 2**number
            stride = 1 if number == 0 else 2
            blocks = nn.Sequential(Block(before, channels, stride), Block(channels, channels, 1))
            setattr(self, f"layer{number + 1}", blocks)
            before = channels
        self.seg_1 = nn.Linear(2 * before * (mels // 8), embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x.transpose(1, 2)[:, None])).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        mean, deviation = x.mean(-1), (x.var(-1, correction=1) + 1e-7).sqrt()
        return self.seg_1(torch.cat((mean.flatten(1), deviation.flatten(1)), 1))


class ConvNorm(nn.Module):
    def __init__(self, before: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, channels, kernel, padding=kernel // 2)
        self.bn = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x).relu())


class Res2(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // 8
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(7))
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(7))

    def forward(self, x: Tensor) -> Tensor:
        groups = x.chunk(8, 1)
        outputs = []
        for number in range(7):
            fed = groups[number] + outputs[-1] if outputs else groups[0]
            outputs.append(self.bns[number](self.convs[number](fed).relu()))
        return torch.cat((*outputs, groups[7]), 1)


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, 128), nn.Linear(128, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear2(self.linear1(x.mean(2)).relu()).sigmoid()[..., None]


class SERes2(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        parts = ConvNorm(channels, channels, 1), Res2(channels, dilation), ConvNorm(channels, channels, 1)
        self.se_res2block = nn.Sequential(*parts, Gate(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.se_res2block(x)


class AttentivePooling(nn.Module):
    def __init__(self, dim: int, context: bool) -> None:
        super().__init__()
        self.context = context
        self.linear1, self.linear2 = nn.Conv1d(3 * dim if context else dim, 128, 1), nn.Conv1d(128, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        if self.context:
            mean, deviation = x.mean(-1, keepdim=True), (x.var(-1, keepdim=True, correction=1) + 1e-7).sqrt()
            seen = torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), 1)
        weights = self.linear2(self.linear1(seen).tanh()).softmax(2)
        mean = (weights * x).sum(2)
        return torch.cat((mean, ((weights * x**2).sum(2) - mean**2).clamp(min=1e-7).sqrt()), 1)


class ECAPA(nn.Module):
    def __init__(self, channels: int, mels: int, embed_dim: int, context: bool) -> None:
        super().__init__()
        self.layer1 = ConvNorm(mels, channels, 5)
        self.layer2, self.layer3, self.layer4 = (SERes2(channels, dilation) for dilation in (2, 3, 4))
        self.conv = nn.Conv1d(3 * channels, 3 * channels, 1)
        self.pool = AttentivePooling(3 * channels, context)
        self.bn = nn.BatchNorm1d(6 * channels)
        self.linear = nn.Linear(6 * channels, embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        second = self.layer2(self.layer1(x.transpose(1, 2)))
        third = self.layer3(second)
        maps = torch.cat((second, third, self.layer4(third)), 1)
        return self.linear(self.bn(self.pool(self.conv(maps).relu())))
