"""The graph of ECAPA-TDNN. Norms between a ReLU and a padded convolution cannot be folded."""

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.ecapa_tdnn import ConvReluNorm, Model, Res2Conv, SERes2Block


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    fed = _conv_relu_norm(graph, model.stem, graph.add("Transpose", feats, perm=[0, 2, 1]))
    outputs: list[str] = []
    for block in model.blocks:
        outputs.append(_block(graph, block, fed))
        if len(outputs) < len(model.blocks):
            fed = graph.add("Add", fed, outputs[-1]) if model.sums_outputs else outputs[-1]
    maps = graph.conv_of(graph.add("Concat", *outputs, axis=1), model.aggregate)
    pooled = pool(graph, model.pooling, graph.add("Relu", maps))
    return graph.linear_of(graph.add("Flatten", pooled), model.embedding, before=model.norm)


def _conv_relu_norm(graph: Graph, layer: ConvReluNorm, maps: str) -> str:
    conv, _, norm = layer
    return graph.norm_of(graph.add("Relu", graph.conv_of(maps, conv)), norm)


def _block(graph: Graph, block: SERes2Block, maps: str) -> str:
    inner = _res2(graph, block.res2, _conv_relu_norm(graph, block.expand, maps))
    inner = _conv_relu_norm(graph, block.merge, inner)
    hidden = graph.add("Relu", graph.conv_of(graph.mean(inner, -1), block.gate[0]))
    gate = graph.add("Sigmoid", graph.conv_of(hidden, block.gate[2]))
    return graph.add("Add", maps, graph.add("Mul", inner, gate))


def _res2(graph: Graph, layer: Res2Conv, maps: str) -> str:
    untouched, *groups = graph.split("Split", layer.scale, maps, axis=1)
    outputs = [untouched]
    for conv, group in zip(layer.convs, groups, strict=True):
        fed = group if len(outputs) == 1 else graph.add("Add", group, outputs[-1])
        outputs.append(_conv_relu_norm(graph, conv, fed))
    return graph.add("Concat", *outputs, axis=1)
