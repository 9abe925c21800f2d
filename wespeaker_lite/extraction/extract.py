"""Embeddings of whole utterances, in batches of similar length. An embedding does not depend on its batch (1e-5).

An utterance of more than a minute is cut into equal parts, whose embeddings are averaged: an hour at once would take
gigabytes, and attention over its frames the square of them.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from wespeaker_lite.core.devices import device_of, explain_out_of_memory
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.kaldi.arks import ArkWriter, Location, read_array, read_rows, read_scp
from wespeaker_lite.kaldi.tables import iter_counts, sorted_keys
from wespeaker_lite.recipe import resolved, trained_model

log = logging.getLogger(__name__)

LONGEST = 60.0  # seconds that are embedded at once; of longer recordings, the mean of equal parts is taken
Key = TypeVar("Key", "Part", str)


class Part(NamedTuple):
    """Frames [first, last) of an utterance."""

    utterance: str
    first: int
    last: int


@dataclass(frozen=True)
class Batching:
    """frames: frames of a batch, including padding. padding: the largest share of padding in a batch."""

    frames: int = 6000
    padding: float = 0.1


def extract(
    model: str | Path, data: Path, prefix: str | Path, batching: Batching, device: str = "cpu", config: str = ""
) -> None:
    """Write PREFIX.ark and PREFIX.scp with a float32 embedding of every utterance of a data dir.

    config: the resolved config that the model must have; empty for any.

    Raises:
        InputError: if model or features are missing, do not fit each other or the config, or an embedding is not
            finite.
    """
    trained = trained_model.load(model)
    if config:
        _check_config(model, trained, config)
    network = trained.model.to(device_of(device, "--device"))
    places = read_scp(data / "feats.scp")
    frames = dict(iter_counts(data / "utt2num_frames"))
    if frames.keys() != places.keys():
        raise InputError(f"{data}: feats.scp and utt2num_frames do not list the same utterances; run stage 2 again")
    longest = round(1000 * LONGEST / trained.config["features"]["frame_shift_ms"])
    parts = {part: part.last - part.first for name in frames for part in parts_of(name, frames[name], longest)}
    embeddings: dict[Part, np.ndarray] = {}
    for batch in with_progress(batches_of_like_length(parts, batching), len(parts), "utterances", len):
        crops = [_read_part(part, places[part.utterance], frames[part.utterance], trained) for part in batch]
        for part, vector in zip(batch, embed(network, crops, device), strict=True):
            if not vector.isfinite().all():
                raise InputError(f"{part.utterance}: its embedding is not finite")
            embeddings[part] = vector.numpy()
    with ArkWriter(prefix) as writer:
        for utterance in sorted_keys(frames):
            own = [embeddings[part] for part in parts_of(utterance, frames[utterance], longest)]
            writer.write(utterance, np.mean(own, axis=0, dtype=np.float32))
    log.info("%d embeddings in %s.ark", len(frames), prefix)
    if len(parts) > len(frames):
        log.info("of recordings over %g s, the embeddings of equal parts are averaged", LONGEST)


def parts_of(utterance: str, frames: int, longest: int) -> list[Part]:
    """Cut an utterance of so many frames into as few parts of up to `longest` as will do, equal but for a frame."""
    count = -(-frames // longest)
    ends = [frames * number // count for number in range(count + 1)]
    return [Part(utterance, first, last) for first, last in pairwise(ends)]


@torch.inference_mode()
def embed(network: nn.Module, feats: list[Tensor], device: str | torch.device = "cpu") -> Tensor:
    """Compute embeddings (B, D), on the CPU, of features (T_i, F) after mean subtraction, which are padded and masked.

    Raises:
        InputError: if memory does not suffice.
    """
    lengths = torch.tensor([len(feat) for feat in feats])
    padding_needed = bool((lengths != lengths[0]).any())
    batch = f"{len(feats)} utterances of up to {int(lengths.max())} frames"
    with explain_out_of_memory(batch, "take smaller batches (--batch-frames), or cut long recordings"):
        padded = nn.utils.rnn.pad_sequence(feats, batch_first=True).to(device)
        return network(padded, lengths.to(device) if padding_needed else None).float().cpu()


def batches_of_like_length(frames: Mapping[Key, int], batching: Batching) -> Iterator[list[Key]]:
    """Group utterances or parts in descending length, so that no batch exceeds the limits of frames and padding."""
    batch: list[Key] = []
    filled = 0
    for utterance in sorted(frames, key=lambda key: (-frames[key], key)):
        longest = frames[batch[0]] if batch else 0
        padded = (len(batch) + 1) * longest
        full = padded > batching.frames or filled + frames[utterance] < (1 - batching.padding) * padded
        if batch and full:
            yield batch
            batch, filled = [], 0
        batch.append(utterance)
        filled += frames[utterance]
    if batch:
        yield batch


def _check_config(model: str | Path, trained: trained_model.TrainedModel, config: str) -> None:
    theirs, ours = trained.config, resolved.read(config)
    sections = (theirs.keys() | ours.keys()) - {"runtime", "scoring"}
    different = sorted(name for name in sections if theirs.get(name) != ours.get(name))
    if different:
        raise InputError(
            f"{model} was made with another config than {config} ({', '.join(different)}): run stage 4 first"
        )


def read_features(utterance: str, place: Location, trained: trained_model.TrainedModel) -> Tensor:
    """Read the features (T, F) of a whole utterance for a model, with mean subtraction if the model was trained so.

    Raises:
        InputError: naming the utterance, if its number of mel bins differs from the model's, or it cannot be read.
    """
    return _as_trained(utterance, torch.from_numpy(read_array(utterance, place)), trained)


def _read_part(part: Part, place: Location, frames: int, trained: trained_model.TrainedModel) -> Tensor:
    """The same of a part (T, F) of an utterance of so many frames; the mean is that of the part."""
    if part.last - part.first < frames:
        rows = read_rows(part.utterance, place, part.first, part.last)
        return _as_trained(part.utterance, torch.from_numpy(rows), trained)
    feats = read_features(part.utterance, place, trained)
    if len(feats) != frames:
        raise InputError(
            f"{place.ark}: {part.utterance} has {len(feats)} frames, where utt2num_frames says {frames}: "
            "run stage 2 again"
        )
    return feats


def _as_trained(utterance: str, feats: Tensor, trained: trained_model.TrainedModel) -> Tensor:
    if feats.shape[1] != trained.num_mels:
        raise InputError(f"{utterance}: {feats.shape[1]} mel bins, but the model reads {trained.num_mels}")
    return feats - feats.mean(0) if trained.config["crop"]["cmn"] else feats
