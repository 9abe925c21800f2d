"""How hard each loss pulls at the student, and whether it pulls where the classification does."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gradients_by_loss(weighted: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """The gradient norm of each weighted loss, `gradient_NAME`, and its cosine to that of `class`, `cosine_NAME`.

    The gradients are of the parameters of the student's network, which all losses share; heads and what terms train of
    their own do not count. A loss that does not reach the network has the norm 0. It costs a backward pass for each
    loss. With several processes a figure is the mean of what each has for its share of the batch.
    """
    gradients = {name: _gradient(loss, parameters) for name, loss in weighted.items()}
    norms = {name: torch.linalg.vector_norm(gradient) for name, gradient in gradients.items()}
    figures = {f"gradient_{name}": norm for name, norm in norms.items()}
    for name in gradients:
        if name == "class":
            continue
        product = gradients[name] @ gradients["class"]
        figures[f"cosine_{name}"] = product / (norms[name] * norms["class"]).clamp(min=1e-20)
    return figures


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """All gradients of a loss as one vector, in float32."""
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if grad is None else grad).flatten().float() for grad, p in pairs])
