"""Run by test_distributed.py with torchrun: ranks that share a batch must give the results of the whole batch."""

import copy

import torch
from torch import nn

from tests.training.learners import NETWORKS, batch_of, learner_of
from wespeaker_lite.training.distributed import GradientSum, joined_ranks
from wespeaker_lite.training.learner import Learner

TERMS = {
    "resnet": [{"name": "self_teacher"}],
    "bc_cmt": [{"name": name} for name in ("label", "embedding", "attention", "self_teacher")],
}


def gradients(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in learner.named_parameters()}


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], what: str) -> None:
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-7, atol=1e-9, msg=lambda text, n=name: f"{what} {n}: {text}"
        )


def check(name: str, overlapped: bool) -> None:
    learner = learner_of(name, TERMS.get(name, [])).double()
    learner.teacher.double()
    feats, labels = batch_of()
    feats = feats.double()
    whole = copy.deepcopy(learner)
    expected = whole(feats, labels, labels, 0.0)
    expected.total.backward()
    with_ranks = feats[ranks.rank :: ranks.count], labels[ranks.rank :: ranks.count]
    ranks.synchronise(learner)
    gradient_sum = GradientSum(ranks, learner, overlapped)
    losses = learner(*with_ranks, with_ranks[1], 0.0)
    (losses.total / ranks.count).backward()
    gradient_sum.finish()
    torch.testing.assert_close(ranks.mean(losses.total.detach()), expected.total.detach())
    assert ranks.any(ranks.rank == 1)
    assert not ranks.any(False)
    close(gradients(learner), gradients(whole), f"{name}: gradient of")
    close(dict(learner.named_buffers()), dict(whole.named_buffers()), f"{name}: statistic")
    learner.eval(), whole.eval()
    torch.testing.assert_close(learner.student(feats), whole.student(feats))
    assert learner.state_dict().keys() == whole.state_dict().keys()


with joined_ranks("cpu") as ranks:
    GradientSum.MESSAGE = 3000  # bytes: these networks are small
    for network_name in NETWORKS:
        for overlapped in (False, True):
            check(network_name, overlapped)
    assert len(GradientSum(ranks, learner_of("resnet", []), True).messages) > 3
    norms, rows = nn.Sequential(nn.BatchNorm1d(3, affine=False)).double(), torch.randn(8, 3).double()
    whole = copy.deepcopy(norms)(rows)
    ranks.synchronise(norms)
    torch.testing.assert_close(norms(rows[ranks.rank :: ranks.count]), whole[ranks.rank :: ranks.count])
    own = nn.Sequential(nn.BatchNorm1d(3, momentum=1.0), nn.Linear(3, 3))
    ranks.synchronise(own, shared=False)
    mine = torch.randn(8, 3, generator=torch.Generator().manual_seed(ranks.rank))
    torch.testing.assert_close(own[0](mine), nn.functional.batch_norm(mine, None, None, training=True))
    ranks.average_statistics(own)
    both = torch.stack([torch.randn(8, 3, generator=torch.Generator().manual_seed(rank)) for rank in (0, 1)])
    torch.testing.assert_close(own[0].running_mean, both.mean(1).mean(0))
    torch.testing.assert_close(own[0].running_var, both.var(1).mean(0))
    alike = torch.nn.Linear(2, 2)
    with torch.no_grad():
        alike.weight.fill_(ranks.rank)
    try:
        ranks.synchronise(alike)
    except RuntimeError as error:
        print(f"noticed: {error}")
print(f"rank {ranks.rank} of {ranks.count} is content")
