"""Small learners of every network and every KD term, each with an untrained teacher of the same architecture."""

import importlib
import pkgutil

import torch
from torch import nn

from wespeaker_lite import distill, models
from wespeaker_lite.distill.outputs import Outputs, outputs_for_silence, outputs_of
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import HeadConfig, build_head
from wespeaker_lite.training.learner import Learner

FRAMES, MELS, CLASSES = 40, 10, 5
NETWORKS = {
    "ecapa_tdnn": {"channels": 16, "embed_dim": 8, "se_bottleneck": 8, "mfa_channels": 24, "attention_bottleneck": 8},
    "resnet": {"width": 4, "embed_dim": 8},
    "bc_cmt": {"channels": [8, 8], "depth": [1, 1], "strides": [1, 1], "bands": 5, "embed_dim": 8},
}
TERMS = tuple(
    name
    for _, name, _ in pkgutil.iter_modules(distill.__path__)
    if {"Config", "Term"} <= vars(importlib.import_module(f"{distill.__name__}.{name}")).keys()
)


class Teacher(nn.Module):
    """An untrained network with its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network.eval(), build_head({}, network.embed_dim, CLASSES)

    @torch.no_grad()
    def forward(self, feats: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor, inside: bool) -> Outputs:
        return outputs_of(self.network, self.head, feats, labels, inside)


def learner_of(name: str, terms: list[dict]) -> Learner:
    """A learner with initial weights. Its norms have random gains and shifts, so that mistakes in them are visible.

    Raises:
        InputError: where the network does not show what a term asks for.
    """
    torch.manual_seed(1)
    network, other = (models.build(name, NETWORKS[name], num_mels=MELS) for _ in range(2))
    teacher = Teacher(other)
    shown, taught = outputs_for_silence(network, FRAMES, MELS), outputs_for_silence(other, FRAMES, MELS, teacher.head)
    built = distill.build_terms(terms, Partners(shown, taught, HeadConfig(), CLASSES, FRAMES))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return Learner(network, build_head({}, network.embed_dim, CLASSES), built, teacher).train()


def batch_of(crops: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (B, T, F) and labels (B,)."""
    return torch.randn(crops, FRAMES, MELS, generator=torch.Generator().manual_seed(2)), torch.arange(crops) % CLASSES
