"""The gradient norm of each loss, and the cosine between its gradient and that of the classification."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gradients_by_loss(weighted: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Compute the gradient norm of each weighted loss, `gradient_NAME`, and the cosine of its gradient to that of
    `class`, `cosine_NAME`.

    Gradients are with respect to `parameters`, those of the student's network, which all losses share. The norm of a
    loss that does not depend on the network is 0. Each loss needs a backward pass. With several processes, a value is
    the mean over the processes, each for its share of the batch.
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
