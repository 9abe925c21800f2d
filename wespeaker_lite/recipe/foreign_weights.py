"""Convert weights of wespeaker's networks: their tensors are renamed. 3D-Speaker's CAM++ has our names already.

There is a table of names for each network. A file is refused if a tensor of it is not in the table, or a tensor of our
network is missing. The network must also compute the same: the options `unbiased` and `blocks_fed` select wespeaker's
differences from the papers. The ECAPA-TDNNs of SpeechBrain and 3D-Speaker cannot be converted, because their
convolutions use reflection padding.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from wespeaker_lite.core.errors import InputError

_HEAD = "projection."  # wespeaker's margin heads, which have other classes
_POOLING = {"pool.linear1": "pooling.hidden", "pool.linear2": "pooling.score"}
_RESNET = {
    "conv1": "stem.0",
    "bn1": "stem.1",
    **{
        f"layer{stage + 1}.{block}.{theirs}": f"stages.{stage}.{block}.{ours}"
        for stage in range(4)
        for block in range(6)
        for theirs, ours in {
            **{f"conv{n}": f"conv{n}" for n in (1, 2)},
            **{f"bn{n}": f"norm{n}" for n in (1, 2)},
            **{f"shortcut.{n}": f"shortcut.{n}" for n in (0, 1)},
        }.items()
    },
    **_POOLING,
    "seg_1": "embedding",
}
_ECAPA = {
    "layer1.conv": "stem.0",
    "layer1.bn": "stem.2",
    **{
        f"layer{block + 2}.se_res2block.{theirs}": f"blocks.{block}.{ours}"
        for block in range(3)
        for theirs, ours in {
            **{f"{theirs}.conv": f"{ours}.0" for theirs, ours in ((0, "expand"), (2, "merge"))},
            **{f"{theirs}.bn": f"{ours}.2" for theirs, ours in ((0, "expand"), (2, "merge"))},
            **{f"1.convs.{group}": f"res2.convs.{group}.0" for group in range(7)},
            **{f"1.bns.{group}": f"res2.convs.{group}.2" for group in range(7)},
            "3.linear1": "gate.0",
            "3.linear2": "gate.2",
        }.items()
    },
    "conv": "aggregate",
    **_POOLING,
    "bn": "norm",
    "linear": "embedding",
}
_TABLES = {"resnet": _RESNET, "ecapa_tdnn": _ECAPA}


def translate(state: Mapping[str, Tensor], network: str, model: nn.Module, where: str) -> dict[str, Tensor]:
    """Convert the weights of a file for `model`, our network named `network`. They may have our names already.

    Raises:
        InputError: naming `where` and a tensor, if one is unknown, missing or of another shape.
    """
    wanted = model.state_dict()
    found = {name.removeprefix("module."): value for name, value in state.items()}
    found = {name: value for name, value in found.items() if not name.startswith(_HEAD)}
    if not found.keys() & wanted.keys():
        found = _renamed(found, network, where)
    for name, tensor in wanted.items():
        if name not in found:
            raise InputError(f"{where}: has no weights for {name} of our {network}: do model's options fit it?")
        if found[name].numel() != tensor.numel():
            shapes = f"{tuple(found[name].shape)}, where our {network} has {tuple(tensor.shape)}"
            raise InputError(f"{where}: {name} is {shapes}: do model's options fit it?")
        found[name] = found[name].reshape(tensor.shape)  # their linear layer may be our convolution
    if unknown := sorted(found.keys() - wanted.keys()):
        raise InputError(f"{where}: has {unknown[0]}, which our {network} does not have: do model's options fit it?")
    return found


def _renamed(state: Mapping[str, Tensor], network: str, where: str) -> dict[str, Tensor]:
    if any(name.startswith(("asp.", "blocks.0.conv.conv.")) for name in state):
        raise InputError(
            f"{where}: SpeechBrain's ECAPA-TDNN, or one made from it, differs from ours (in padding and features): "
            "extract its embeddings there, and name them in distill.embeddings (docs/kd.md)"
        )
    table = _TABLES.get(network, {})
    renamed = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if layer not in table:
            raise InputError(f"{where}: unknown tensor {name}: it is neither our {network}'s nor wespeaker's")
        renamed[f"{table[layer]}.{kind}"] = value
    return _reordered(renamed) if network == "ecapa_tdnn" else renamed


def _reordered(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Reorder the Res2 groups: the unchanged group is wespeaker's last and our first.

    So the outputs of the layer before, and the inputs of the layer after, are rotated by one group.
    """
    for block in range(3):
        before, after = f"blocks.{block}.expand.", f"blocks.{block}.merge.0.weight"
        width = len(state.get(f"blocks.{block}.res2.convs.0.0.bias", ()))
        for name, value in state.items():
            if name.startswith(before) and value.dim():
                state[name] = value.roll(width, 0)
        if after in state:
            state[after] = state[after].roll(width, 1)
    return state
