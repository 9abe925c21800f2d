"""Pretrained weights are found and loaded, or a message says how to download them."""

import sysconfig
from pathlib import Path

import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe import pretrained, resolved, trained_model
from wespeaker_lite.recipe.experiment import from_given

NETWORK = {"name": "resnet", "depth": 18, "width": 4, "embed_dim": 8}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site-packages folder with random weights of a small network."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "site"))
    monkeypatch.setitem(pretrained.SOURCES, "made", "made/weights.pt")
    (tmp_path / "site/made").mkdir(parents=True)
    return tmp_path


def config(folder: Path, name: str = "made") -> Path:
    experiment = from_given({"model": NETWORK, "pretrained": name}, "test")
    resolved.write(folder / "config.yaml", to_mapping(experiment))
    return folder / "config.yaml"


def test_weights_become_a_trained_model_without_head(site: Path) -> None:
    conf = config(site)
    model = trained_model.build_model(resolved.read(conf))
    torch.save(model.state_dict(), site / "site/made/weights.pt")
    pretrained.import_weights(conf, site / "exp")
    trained = trained_model.load(site / "exp/final.pt")
    assert trained.head is None
    assert trained.classes == []
    feats = torch.randn(1, 50, 80)
    assert torch.equal(trained.model(feats), model.eval()(feats))


def test_missing_or_unsuitable_weights_are_errors(site: Path) -> None:
    with pytest.raises(InputError, match=r"fetch them: tools/install.sh --extras peers"):
        pretrained.import_weights(config(site), site / "exp")
    with pytest.raises(InputError, match=r"'maid' is no file, and no known source: .*made"):
        pretrained.import_weights(config(site, "maid"), site / "exp")
    torch.save({"x": torch.zeros(1)}, site / "site/made/weights.pt")
    with pytest.raises(InputError, match="unknown tensor x"):
        pretrained.import_weights(config(site), site / "exp")
