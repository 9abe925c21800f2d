"""The program draw_attention, started as by a user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.recipe import resolved, stamps, trained_model
from wespeaker_lite.recipe.experiment import from_given

BC_CMT = {"name": "bc_cmt", "channels": [8], "depth": [1], "strides": [1], "embed_dim": 8}
ECAPA = {"name": "ecapa_tdnn", "channels": 16, "embed_dim": 8, "mfa_channels": 24}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, model in (("base", BC_CMT), ("ecapa", ECAPA)):
        config = to_mapping(from_given({"model": model, "features": {"num_mels": 20}}, "test"))
        torch.manual_seed(0)
        network = trained_model.build_model(config)
        trained_model.save(tmp_path / f"{name}.pt", trained_model.TrainedModel(config, network, None, []))
    with ArkWriter(tmp_path / "feats") as writer:
        writer.write("s-1", np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32))
    return tmp_path


def run(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wespeaker_lite.bin.draw_attention", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_picture_and_figures_are_written(folder: Path, repository: Path) -> None:
    systems = ("--system", f"teacher={folder}/base.pt", "--system", f"kd={folder}/base.pt")
    done = run(repository, *systems, "--data", folder, "--out", folder / "out" / "maps.png")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["maps.json", "maps.png"]


def test_a_network_without_attention_ends_with_one_line(folder: Path, repository: Path) -> None:
    systems = ("--system", f"teacher={folder}/base.pt", "--system", f"kd={folder}/ecapa.pt")
    done = run(repository, *systems, "--data", folder, "--out", folder / "out" / "maps.png")
    assert done.returncode == 1
    assert done.stderr == "draw_attention: kd: its network (ecapa_tdnn) has no self-attention to show\n"
    assert not (folder / "out").exists()


def test_the_experiment_without_kd_is_printed_if_there_is_one(folder: Path, repository: Path) -> None:
    kd = {"teacher": "conf/base.yaml", "terms": [{"name": "attention"}]}
    for name, distill in (("kd", kd), ("plain", {})):
        config = to_mapping(from_given({"model": BC_CMT, "features": {"num_mels": 20}, "distill": distill}, "test"))
        resolved.write(folder / name / "config.yaml", config)
    assert run(repository, "--without-kd", folder / "kd").stdout == "\n"
    shutil.copy(folder / "base.pt", folder / "plain" / "final.pt")
    sections = tuple(name for name in config if name not in ("runtime", "scoring"))
    inputs = stamps.Inputs(config=str(folder / "plain" / "config.yaml"), sections=sections)
    stamps.write(folder / "plain" / ".train.stamp", inputs, [str(folder / "plain" / "final.pt")])
    assert run(repository, "--without-kd", folder / "kd").stdout == f"{folder}/plain\n"
