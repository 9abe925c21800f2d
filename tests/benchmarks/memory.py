"""Memory that a network keeps for its backward pass, per training crop: python -m tests.benchmarks.memory

It counts the tensors that autograd saves for a crop of 2 s, on a CPU. Weights, gradients and the optimiser are not
included, since they do not grow with the batch.
"""

import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.recipe import experiment, trained_model

CONFS = ("bc_cmt_tiny", "bc_cmt_base", "ecapa_c128", "ecapa_c512", "resnet18", "resnet34")
CROPS, FRAMES = 4, 200


def saved_bytes(network: torch.nn.Module, num_mels: int, half: bool) -> float:
    """Bytes of the tensors that autograd saves for one crop; a storage counts once, weights do not."""
    saved = []
    hooks = torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    )
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        network(torch.randn(CROPS, FRAMES, num_mels))
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    return sum(size for place, size in storages.items() if place not in weights) / CROPS


def main() -> None:
    """Print a Markdown table."""
    print("| conf | fp32, MiB per crop | bf16 |\n| :--- | ---: | ---: |")
    for conf in CONFS:
        config = experiment.load(f"conf/{conf}.yaml")
        network = trained_model.build_model(to_mapping(config)).train()
        sizes = [saved_bytes(network, config.features.num_mels, half) / 2**20 for half in (False, True)]
        print(f"| `{conf}` | {sizes[0]:.1f} | {sizes[1]:.1f} |")


if __name__ == "__main__":
    main()
