"""Weights of other toolkits: equal embeddings in our network, or one line about the mismatch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.deploy.models import with_statistics
from tests.recipe.plain_wespeaker import ECAPA, ResNet18
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe import pretrained, resolved, trained_model
from wespeaker_lite.recipe.experiment import from_given

RESNET = {"name": "resnet", "depth": 18, "width": 4, "embed_dim": 8, "unbiased": True}
ECAPA_OPTIONS = {
    "name": "ecapa_tdnn", "channels": 32, "mfa_channels": 96, "embed_dim": 8, "blocks_fed": "last", "unbiased": True,
}  # fmt: skip
CASES = {
    "resnet": (RESNET, lambda: ResNet18(4, 40, 8)),
    "ecapa": (ECAPA_OPTIONS | {"global_context": False}, lambda: ECAPA(32, 40, 8, context=False)),
    "ecapa-context": (ECAPA_OPTIONS, lambda: ECAPA(32, 40, 8, context=True)),
}


def imported(folder: Path, options: dict[str, Any], record: dict[str, Any]) -> torch.nn.Module:
    torch.save(record, folder / "avg_model.pt")
    given = {"model": options, "features": {"num_mels": 40}, "pretrained": str(folder / "avg_model.pt")}
    resolved.write(folder / "config.yaml", to_mapping(from_given(given, "test")))
    pretrained.import_weights(folder / "config.yaml", folder)
    return trained_model.load(folder / "final.pt").model


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_file_of_wespeaker_gives_its_embeddings(case: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options, build = CASES[case]
    theirs = with_statistics(build(), 40)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    ours = imported(tmp_path, options, state | {"module.projection.weight": torch.zeros(5, 8)})
    feats = 3 * torch.randn(3, 57, 40)
    wanted = theirs(feats)
    assert wanted.std() > 0.1
    torch.testing.assert_close(ours(feats), wanted, rtol=1e-5, atol=2e-5)


def test_a_file_in_our_names_may_be_wrapped(tmp_path: Path) -> None:
    """3D-Speaker's CAM++ has our names."""
    options = {"name": "campplus", "channels": 8, "growth": 2, "head_channels": 4, "embed_dim": 6}
    theirs = trained_model.build_model({"model": options, "features": {"num_mels": 40}}).eval()
    ours = imported(tmp_path, options, {"epoch": 3, "model": theirs.state_dict()})
    feats = torch.randn(1, 57, 40)
    assert torch.equal(ours(feats), theirs(feats))


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"seg_2.weight": torch.zeros(8, 8)}, "avg_model.pt: unknown tensor seg_2.weight"),
        ({"width": 8}, {}, "stem.0.weight is .4, 1, 3, 3., where our resnet has .8, 1, 3, 3.: do model's options"),
        ({"depth": 34}, {}, "has no weights for stages.0.2.conv1.weight of our resnet: do model's options"),
        ({}, {"layer1.5.conv1.weight": torch.zeros(1)}, "has stages.0.5.conv1.weight, which our resnet does not have"),
        ({}, {"asp.tdnn.conv.conv.weight": torch.zeros(1)}, "SpeechBrain's ECAPA-TDNN.*distill.embeddings"),
    ],
)
def test_mismatches_are_errors(options: dict, change: dict, message: str, tmp_path: Path) -> None:
    state = ResNet18(4, 40, 8).state_dict()
    with pytest.raises(InputError, match=message):
        imported(tmp_path, RESNET | options, state | change)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no mapping of names to tensors"):
        imported(tmp_path, RESNET, {"epoch": 3})
