"""The training loop, checkpoints, schedules and meters."""

from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.training.optimiser import OptimiserConfig
from wespeaker_lite.training.schedule import LearningRateConfig, MarginConfig


@dataclass(frozen=True)
class TrainConfig:
    """What the result of training depends on.

    batch_size: crops of all processes together. crops_per_epoch: 0 for as many as there are utterances. sampling: what
    gets as many crops as any other: an utterance, a speaker, or a corpus of a pool. clip_norm: the largest norm of a
    gradient, 0 for no limit. average_last: the final weights are the mean over the ends of so many epochs.
    """

    epochs: int = 150
    batch_size: int = 128
    crops_per_epoch: int = 0
    sampling: Literal["utterance", "speaker", "corpus"] = "utterance"
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    learning_rate: LearningRateConfig = field(default_factory=LearningRateConfig)
    margin: MarginConfig = field(default_factory=MarginConfig)
    clip_norm: float = 5.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    average_last: int = 10

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.average_last < 1:
            raise ValueError("expected epochs >= 1, batch_size >= 2 and average_last >= 1")


@dataclass(frozen=True)
class RuntimeConfig:
    """What the result does not depend on (but for the last bits, which `threads` and `device` can change).

    device: auto, cpu, cuda, cuda:1 ... threads: of torch on the CPU; 0 leaves it to torch. workers: processes that read
    crops; a crop is one short read, so that one or two feed a GPU. checkpoint_batches: also save in mid-epoch, every so
    many batches; 0 for never (log_every alike). keep: ends of epochs to keep.
    """

    device: str = "auto"
    threads: int = 0
    workers: int = 0
    log_every: int = 50
    checkpoint_batches: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        if min(self.threads, self.workers, self.log_every, self.checkpoint_batches) < 0 or self.keep < 1:
            raise ValueError("expected no negative numbers, and keep >= 1")
