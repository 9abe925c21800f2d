"""Use of a trained model: embeddings and scores of recordings."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.audio.reading import Recording, check_values, convert, open_recording
from wespeaker_lite.audio.resample import check_rate, equal_parts
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy import onnx_model
from wespeaker_lite.deploy.front_end import FrontEnd
from wespeaker_lite.extraction.extract import LONGEST, embed
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.scoring.verification import Verification, read_verification

DEFAULT_MODEL = "bc_cmt_tiny.pt"
SHORTEST = 0.3  # seconds of audio that an embedding needs
_SILENCE = 1e-5  # a smaller range of samples is silence: a third of the step of 16-bit samples
_ROUNDING = 0.001  # seconds

Audio = str | os.PathLike | np.ndarray


class SpeakerModel:
    """A network with its front end, and the mean, thresholds and calibration of its experiment, if there are any.

    Audio is a path to a file that soundfile reads, or samples (n,) or (n, channels) with their sampling rate: floats in
    [-1, 1] or integers. Embeddings equal those of stage 5: the front end is the same, and features are rounded to one
    byte as in its arks.
    """

    def __init__(
        self,
        network: nn.Module,
        features: FbankConfig,
        front_end: Callable[[np.ndarray], Tensor],
        weights: str,
        verification: Verification | None,
        name: str,
    ) -> None:
        """`front_end` maps samples (n,) to the input of the network, without the batch axis. `weights` is the digest
        that `verification` must have, if it has one.
        """
        self._network, self.features, self._front_end, self.name = network, features, front_end, name
        self.verification = verification
        if verification is not None:
            verification.check(weights, name)
        mean = verification.mean if verification else None
        if mean is not None and mean.shape != (network.embed_dim,):
            raise InputError(f"{name}: verify.json beside it is of another model; run stage 6 again")
        self._mean = mean

    @classmethod
    def load(cls, path: str | os.PathLike | None = None) -> Self:
        """Load a final.pt onto the CPU, or an exported .onnx. The default is the model that comes with the package.

        Raises:
            InputError: if the file is missing or not a trained model, or the verify.json beside it belongs to another.
        """
        path = default_model() if path is None else Path(path)
        if path.suffix == ".onnx":
            return cls(*onnx_model.load(path), read_verification(path), str(path))
        trained = trained_model.load(path)
        features = from_mapping(FbankConfig, trained.config["features"], f"{path}: features")
        front_end = FrontEnd(features, trained.config["crop"]["cmn"])
        weights = trained_model.digest(trained.model)
        return cls(trained.model, features, front_end, weights, read_verification(path), str(path))

    def embed(self, audio: Audio, sample_rate: int | None = None) -> np.ndarray:
        """The embedding (D,) float32 of a recording of 0.3 s or more.

        A recording of more than a minute is split into equal parts, and their embeddings are averaged. Silent parts are
        left out. Memory does not grow with the length of a file.

        Raises:
            InputError: if the audio is too short, silent, not finite, or cannot be read.
        """
        if isinstance(audio, str | os.PathLike):
            path = os.fspath(audio)
            if path.endswith("|"):  # commands are allowed only in a wav.scp
                raise InputError(f"{path}: a command, not a path")
            with open_recording(path) as recording:
                return self.embed_recording(recording)
        samples = samples_of(audio, sample_rate, self.features.sample_rate)
        return self._mean_of_parts("audio", [samples], len(samples))

    def embed_recording(self, recording: Recording) -> np.ndarray:
        """The embedding (D,) float32 of an open recording, as `embed`."""
        rate = self.features.sample_rate
        return self._mean_of_parts(recording.name, recording.blocks(rate), round(recording.seconds * rate))

    def _mean_of_parts(self, name: str, blocks: Iterable[np.ndarray], size: int) -> np.ndarray:
        """The mean embedding of equal parts of a recording of `size` samples, which arrive in blocks."""
        seconds = size / self.features.sample_rate
        check_length(name, seconds)
        parts = equal_parts(blocks, size, max(1, math.ceil(seconds / LONGEST)))
        vectors = [self._embed_part(part, name) for part in parts if not is_silent(part)]
        if not vectors:
            raise InputError(f"{name}: silent: it has no sound")
        return np.mean(vectors, axis=0, dtype=np.float32)

    def score(self, enroll: Audio | Sequence[Audio], test: Audio, sample_rate: int | None = None) -> float:
        """The cosine, -1 to 1, of a test recording and the enrolment, which is one recording or a list of them.

        Raises:
            InputError: as `embed`.
        """
        several = enroll if isinstance(enroll, list | tuple) else [enroll]
        return self.compare([self.embed(audio, sample_rate) for audio in several], self.embed(test, sample_rate))

    def compare(self, enroll: Sequence[np.ndarray], test: np.ndarray) -> float:
        """The cosine of an embedding (D,) and the mean direction of those of the enrolment.

        The training set's mean is subtracted first, if it is known.
        """
        if not enroll:
            raise InputError("no enrolment: at least one recording is needed")
        speaker = np.mean([self._unit(vector) for vector in enroll], axis=0)
        return float(_normed(speaker) @ self._unit(test))

    def _unit(self, vector: np.ndarray) -> np.ndarray:
        vector = np.asarray(vector, np.float64)
        return _normed(vector if self._mean is None else vector - self._mean)

    @torch.inference_mode()
    def _embed_part(self, samples: np.ndarray, name: str) -> np.ndarray:
        vector = embed(self._network, [self._front_end(samples)])[0]
        if not vector.isfinite().all():
            raise InputError(f"{name}: its embedding is not finite")
        return vector.numpy()


def default_model() -> Path:
    """Path of the model that comes with the package, in `pretrained/` of a clone or in the installed package.

    Raises:
        InputError: if it is in neither.
    """
    package = Path(__file__).resolve().parent.parent
    places = (package.parent / "pretrained" / DEFAULT_MODEL, package / "weights" / DEFAULT_MODEL)
    for path in places:
        if path.exists():
            return path
    raise InputError(f"no model is given, and {places[0]} does not exist: give the final.pt of an experiment")


def samples_of(audio: np.ndarray, sample_rate: int | None, wanted: int) -> np.ndarray:
    """Convert samples (n,) or (n, channels) to mono float32 (m,) at the rate `wanted`. Integers are scaled to [-1, 1].

    Raises:
        InputError: if the rate is missing or invalid, or the samples have another shape or type or are not finite.
    """
    if not isinstance(sample_rate, int | np.integer):
        raise InputError(f"audio: samples need a sample_rate, a whole number of Hz, not {sample_rate!r}")
    check_rate("audio", int(sample_rate))
    samples = np.asarray(audio)
    if np.issubdtype(samples.dtype, np.signedinteger):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(f"audio: samples must be floats or signed integers, not {samples.dtype}")
    if samples.ndim == 1:
        samples = samples[:, None]
    if samples.ndim != 2 or samples.shape[1] > max(1, samples.shape[0]) or not samples.shape[1]:
        raise InputError(f"audio: samples need the shape (n,) or (n, channels), not {np.shape(audio)}")
    if not len(samples):
        raise InputError("audio: empty")
    check_values("audio", samples)
    return convert(samples.astype(np.float32), int(sample_rate), wanted)


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples (n,) are constant, to within a third of the step of 16-bit samples."""
    return float(np.ptp(samples)) < _SILENCE


def check_length(name: str, seconds: float) -> None:
    """Raise InputError if a recording is too short for an embedding."""
    if seconds < SHORTEST - _ROUNDING:
        raise InputError(f"{name}: too short: {seconds:.2f} s; at least {SHORTEST} s are needed")


def _normed(vector: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(vector)
    if not norm > 0:
        raise InputError("an embedding is zero; check the audio and the model")
    return vector / norm
