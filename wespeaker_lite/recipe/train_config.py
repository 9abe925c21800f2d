"""The sections `train` and `runtime` of a config."""

import re
from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.margin import LARGEST_MARGIN


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser; the learning rate comes from its schedule.

    Attributes:
        name: `sgd` with Nesterov momentum (wespeaker's choice), or `adamw`.
        momentum: of SGD, or the first beta of AdamW.
        weight_decay: of weights. Biases and the gains of normalisation have none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = bounded(0.9, 0, 0.9999)
    weight_decay: float = bounded(1.0e-4, 0, 10)


@dataclass(frozen=True)
class LearningRateConfig:
    """Linear warm-up to `peak`, then a decay to `final` at the end of training; see `learning_rate`.

    Attributes:
        name: the form of the decay. `exponential` is wespeaker's. `cosine`: half a cosine. `one_cycle`: as cosine, with
            a warm-up by half a cosine from a 25th of the peak. `constant`: no decay.
        peak: the largest learning rate.
        final: the learning rate at the end. Not used by `constant`.
        warmup_epochs: length of the warm-up in epochs.
    """

    name: Literal["cosine", "exponential", "one_cycle", "constant"] = "exponential"
    peak: float = bounded(0.1, 1e-12, 100)
    final: float = bounded(5.0e-5, 1e-12, 100)
    warmup_epochs: float = bounded(6.0, 0, 100_000)

    def __post_init__(self) -> None:
        if self.final > self.peak:
            raise ValueError("expected final <= peak")


@dataclass(frozen=True)
class MarginConfig:
    """The margin on its way to that of the head.

    Attributes:
        name: the form of the growth. `exponential` is wespeaker's, fast at first.
        initial: the margin until `start_epoch`.
        start_epoch: where the margin begins to grow.
        end_epoch: where the margin is that of the head. It stays so to the end.
    """

    name: Literal["exponential", "linear"] = "exponential"
    initial: float = bounded(0.0, 0, LARGEST_MARGIN)
    start_epoch: float = bounded(20.0, 0, 100_000)
    end_epoch: float = bounded(40.0, 0, 100_000)

    def __post_init__(self) -> None:
        if self.end_epoch < self.start_epoch:
            raise ValueError("expected end_epoch >= start_epoch")


@dataclass(frozen=True)
class TrainConfig:
    """What the result of training depends on.

    Attributes:
        epochs: number of epochs.
        batch_size: crops in a batch, of all processes together.
        crops_per_epoch: number of crops in an epoch. 0 for as many as there are utterances.
        sampling: what gets equally many crops: each `utterance`, each `speaker`, or each `corpus` of a pool.
        optimiser: the optimiser.
        learning_rate: the schedule of the learning rate.
        margin: the schedule of the head's margin.
        clip_norm: largest norm of a gradient. Larger ones are scaled down. 0 for no limit.
        precision: of the forward pass. `auto` is bf16 on GPUs that compute in it, and fp32 elsewhere.
        average_last: the final weights are the mean over the ends of this many last epochs.
        batch_norm: statistics where several processes train. `shared`: over all processes, which gives what one process
            gives. `local`: of each process' own crops, as DistributedDataParallel does, with the running ones averaged.
            `auto`: shared below 64 crops a process.
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
    """Where and how training runs. The result does not depend on it, but for the last bits: see `threads` and `device`.

    Attributes:
        device: `auto`, `cpu`, `cuda`, or one GPU such as `cuda:1`.
        threads: threads of torch on the CPU. 0 leaves it to torch.
        workers: processes that read crops. 0 for none. -1 is two for a GPU and none for a CPU.
        log_every: write a line to train.log and metrics.jsonl every so many batches. 0 for only at the end of an epoch.
        checkpoint_batches: also write a checkpoint every so many batches. 0 for only at the end of an epoch.
        keep: number of checkpoints at the ends of epochs that are kept.
        patience: minutes that one of several processes waits for the others.
        compile: use torch.compile for networks and KD terms. `auto`: on GPUs, if a trial gives the same loss in less
            time.
        resident_gb: features up to this many GB, noise included, are copied to the GPU, and crops are cut there.
        overlap_gradients: several processes begin to add up gradients before the backward pass ends.
        log_gradients: every so many batches, log the gradient norm of each loss, and its cosine to that of the
            classification. 0 for never.
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
