"""Run by test_distributed.py under torchrun: each rank takes its share of a batch, for what the whole gives."""

import copy

import torch
from torch import nn

from wespeaker_lite import distill, models
from wespeaker_lite.distill.outputs import Outputs, outputs_for_silence, outputs_of
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import HeadConfig, build_head
from wespeaker_lite.training.distributed import joined_ranks
from wespeaker_lite.training.learner import Learner

NETWORKS = {
    "ecapa_tdnn": {"channels": 16, "embed_dim": 8, "se_bottleneck": 8, "mfa_channels": 24, "attention_bottleneck": 8},
    "resnet": {"width": 4, "embed_dim": 8},
    "bc_cmt": {"channels": [8, 8], "depth": [1, 1], "strides": [1, 1], "bands": 5, "embed_dim": 8},
}
TERMS = {
    "resnet": [{"name": "self_teacher"}],
    "bc_cmt": [{"name": name} for name in ("label", "embedding", "attention", "self_teacher")],
}


class Teacher(nn.Module):
    """An untrained network with its head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network.eval(), build_head({}, network.embed_dim, 5)

    @torch.no_grad()
    def forward(self, feats: torch.Tensor, labels: torch.Tensor, indices: torch.Tensor, inside: bool) -> Outputs:
        return outputs_of(self.network, self.head, feats, labels, inside)


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in learner.named_parameters()}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], what: str) -> None:
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{what} {n}: {text}"
        )


def check(name: str) -> None:
    torch.manual_seed(1)
    network, other = (models.build(name, NETWORKS[name], num_mels=10) for _ in range(2))
    teacher = Teacher(other)
    shown, taught = outputs_for_silence(network, 40, 10), outputs_for_silence(other, 40, 10, teacher.head)
    terms = distill.build_terms(TERMS.get(name, []), Partners(shown, taught, HeadConfig(), 5, 40))
    learner = Learner(network, build_head({}, network.embed_dim, 5), terms, teacher.double()).double().train()
    for module in network.modules():  # gains and shifts of which a mistake would show
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    feats, labels = torch.randn(8, 40, 10).double(), torch.arange(8) % 5
    whole = copy.deepcopy(learner)
    expected = whole(feats, labels, labels, 0.0)
    expected.total.backward()
    with_ranks = feats[ranks.rank :: ranks.count], labels[ranks.rank :: ranks.count]
    ranks.unite(learner)
    losses = learner(*with_ranks, with_ranks[1], 0.0)
    (losses.total / ranks.count).backward()
    ranks.sum_gradients(learner)
    means = ranks.mean({"loss": losses.total.item()}, torch.device("cpu"))
    assert abs(means["loss"] - expected.total.item()) < 1e-5 * expected.total.item()
    close(gradients(learner), gradients(whole), f"{name}: gradient of")
    close(dict(learner.named_buffers()), dict(whole.named_buffers()), f"{name}: statistic")
    learner.eval(), whole.eval()
    torch.testing.assert_close(learner.student(feats), whole.student(feats))
    assert learner.state_dict().keys() == whole.state_dict().keys()


with joined_ranks("cpu") as ranks:
    for network_name in NETWORKS:
        check(network_name)
    norms, rows = nn.Sequential(nn.BatchNorm1d(3, affine=False)).double(), torch.randn(8, 3).double()
    whole = copy.deepcopy(norms)(rows)
    ranks.unite(norms)
    torch.testing.assert_close(norms(rows[ranks.rank :: ranks.count]), whole[ranks.rank :: ranks.count])
    alike = torch.nn.Linear(2, 2)
    with torch.no_grad():
        alike.weight.fill_(ranks.rank)
    try:
        ranks.unite(alike)
    except RuntimeError as error:
        print(f"noticed: {error}")
print(f"rank {ranks.rank} of {ranks.count} is content")
