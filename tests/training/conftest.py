"""A small data directory with byte arks, and small experiments on it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.config import merge
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.recipe.experiment import Experiment, from_given

SMALL = {
    "model": {"name": "ecapa_tdnn", "channels": 16, "embed_dim": 8, "se_bottleneck": 8, "mfa_channels": 24,
              "attention_bottleneck": 8},
    "features": {"num_mels": 10},
    "crop": {"frames": 40},
    "head": {"margin": 0.1},
    "train": {
        "epochs": 3,
        "batch_size": 8,
        "average_last": 2,
        "optimiser": {"name": "adamw"},
        "learning_rate": {"name": "cosine", "peak": 0.003, "warmup_epochs": 1},
        "margin": {"start_epoch": 1, "end_epoch": 2},
    },
    "runtime": {"device": "cpu", "threads": 1, "checkpoint_batches": 2, "log_every": 2},
}  # fmt: skip


@pytest.fixture(scope="session")
def small() -> Callable[..., Experiment]:
    """A small experiment, with sections changed: small(train={"epochs": 1})."""
    return lambda **changes: from_given(merge(SMALL, changes), "small")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 utterances of 5 speakers, 60 frames of 10 mels; speakers differ in the shape of their spectrum over time."""
    rng = np.random.default_rng(0)
    data = tmp_path_factory.mktemp("data")
    utt2spk, frames = {}, {}
    shapes = rng.normal(size=(5, 10))
    with ArkWriter(data / "feats") as writer:
        for speaker in range(5):
            for number in range(8):
                utterance = f"s{speaker}-{number}"
                feats = np.outer(rng.normal(size=60), shapes[speaker]) + 0.3 * rng.normal(size=(60, 10))
                writer.write(utterance, feats.astype(np.float32))
                utt2spk[utterance], frames[utterance] = f"s{speaker}", 60
    write_table(data / "utt2spk", utt2spk)
    write_table(data / "utt2num_frames", frames)
    return data
