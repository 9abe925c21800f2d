"""Networks: feature frames in, embeddings out. They do not depend on files, teachers or training.

A network is one module of this package with a frozen dataclass `Config` and a class `Model(config, num_mels)`. `build`
finds it by the module's name.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from wespeaker_lite.core import plugins


def build(name: str, options: Mapping[str, Any], num_mels: int) -> nn.Module:
    """Build the network `name`, a module of this package, with random weights. `options` fill its `Config`.

    Raises:
        InputError: for an unknown network or option, with the nearest match, or for a bad value.
    """
    module, config = plugins.find(__name__, {**options, "name": name}, "model")
    return module.Model(config, num_mels)
