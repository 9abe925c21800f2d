"""The program that exports a trained model, and the programs that use the exported files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.deploy.models import make_model

pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")


def run(folder: Path, repository: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"wespeaker_lite.bin.{program}", *words]
    environment = {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_model_is_exported_and_embeds(tmp_path: Path, repository: Path) -> None:
    make_model(tmp_path / "final.pt")
    done = run(tmp_path, repository, "export", "--model", "final.pt", "--licence", "CC BY 4.0", "--language", "English")
    assert done.returncode == 0, done.stderr
    assert "model.onnx 0." in done.stderr
    card = (tmp_path / "export/card.md").read_text()
    assert "Language: English." in card
    assert "Weights: CC BY 4.0." in card
    for number, name in enumerate(("a.wav", "b.flac")):
        soundfile.write(tmp_path / name, np.random.default_rng(number).normal(0, 0.1, 16000), 16000)
    found = []
    for number, model in enumerate(("final.pt", "export/model.onnx")):
        done = run(tmp_path, repository, "embed", "--model", model, "--out", f"{number}.npz", "a.wav", "b.flac")
        assert done.returncode == 0, done.stderr
        found.append(np.load(tmp_path / f"{number}.npz")["embeddings"])
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_a_model_that_cannot_be_exported_gets_one_line(tmp_path: Path, repository: Path) -> None:
    done = run(tmp_path, repository, "export", "--model", "none.pt")
    assert (done.returncode, done.stderr) == (1, "export: none.pt: no such file\n")
