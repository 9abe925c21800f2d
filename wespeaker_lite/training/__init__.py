"""The training loop, checkpoints, schedules and meters."""

import re
from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.core.config import bounded
from wespeaker_lite.training.optimiser import OptimiserConfig
from wespeaker_lite.training.schedule import LearningRateConfig, MarginConfig


@dataclass(frozen=True)
class TrainConfig:
    """What the result of training depends on.

    batch_size: crops of all processes together. crops_per_epoch: 0 for as many as there are utterances. sampling: what
    gets as many crops as any other: an utterance, a speaker, or a corpus of a pool. clip_norm: the largest norm of a
    gradient, 0 for no limit. precision: auto is bf16 on GPUs that compute in it, and fp32 elsewhere. average_last: the
    final weights are the mean over the ends of so many epochs. batch_norm, where several processes train: shared takes
    statistics over all of them, which gives what one process would give; local takes each process' own, as
    DistributedDataParallel does, and averages the running ones; auto is shared below 64 crops a process.
    """

    epochs: int = bounded(150, 1, 100_000)
    batch_size: int = bounded(128, 2, 1 << 20)
    crops_per_epoch: int = bounded(0, 0, 10**10)
    sampling: Literal["utterance", "speaker", "corpus"] = "utterance"
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    margin: MarginConfig = field(default_factory=MarginConfig)
    clip_norm: float = bounded(5.0, 0, 1e6)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    average_last: int = bounded(10, 1, 1000)
    batch_norm: Literal["auto", "shared", "local"] = "auto"


@dataclass(frozen=True)
class RuntimeConfig:
    """What the result does not depend on (but for the last bits, which `threads` and `device` can change).

    device: auto, cpu, cuda, cuda:1 ... threads: of torch on the CPU; 0 leaves it to torch. workers: processes that read
    crops; a crop is one short read, so that two feed a GPU; -1 is two for a GPU, none for a CPU. checkpoint_batches:
    also save in mid-epoch, every so many batches; 0 for never (log_every alike). log_gradients: measure the gradient
    norm of each loss every so many batches; 0 for never. keep: ends of epochs to keep.
    patience: minutes that one of several processes waits for the others.
    compile: torch.compile for networks and KD terms; auto: on GPUs, if a trial gives the same loss in less time.
    resident_gb: features up to so many GB, noise included, are copied to the GPU, and the same crops are cut there.
    overlap_gradients: several processes begin to add up gradients before the backward pass is at its end.
    """

    device: str = "auto"
    threads: int = bounded(0, 0, 4096)
    workers: int = bounded(-1, -1, 1024)
    log_every: int = bounded(50, 0, 10**9)
    checkpoint_batches: int = bounded(500, 0, 10**9)
    keep: int = bounded(2, 1, 100_000)
    patience: float = bounded(30.0, 0.05, 100_000)
    compile: Literal["auto", "off", "on"] = "auto"
    resident_gb: float = bounded(8.0, 0, 1e6)
    overlap_gradients: bool = False
    log_gradients: int = bounded(0, 0, 10**9)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", self.device):
            raise ValueError(f"device {self.device!r} is none of auto, cpu, cuda, cuda:1 ...")
