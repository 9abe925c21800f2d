"""The sections `train` and `runtime` of a config."""

import re
from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.core.config import added_later, bounded
from wespeaker_lite.models.margin import LARGEST_MARGIN


@dataclass(frozen=True)
class OptimiserConfig:
    """The optimiser. The learning rate is in its own section.

    Attributes:
        name: `sgd` with Nesterov momentum (as in wespeaker), or `adamw`.
        momentum: momentum of SGD, or the first beta of AdamW.
        weight_decay: weight decay of weights. Biases and gains of normalisation have none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = bounded(0.9, 0, 0.9999)
    weight_decay: float = bounded(1.0e-4, 0, 10)


@dataclass(frozen=True)
class LearningRateConfig:
    """Linear warm-up to `peak`, then a decay to `final` at the end of training (`training/schedule.py`).

    Attributes:
        name: the form of the decay. `exponential`: as in wespeaker. `cosine`: half a cosine. `one_cycle`: as `cosine`,
            with a warm-up along half a cosine from a 25th of the peak. `constant`: no decay.
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
    """The schedule of the margin, from `initial` to the margin of the head.

    Attributes:
        name: the form of the growth. `exponential` is as in wespeaker: fast at first.
        initial: the margin until `start_epoch`.
        start_epoch: the epoch at which the margin begins to grow.
        end_epoch: the epoch from which on the margin is that of the head.
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
    """Options that change the result of training.

    Attributes:
        epochs: number of epochs.
        batch_size: crops in a batch, over all processes.
        crops_per_epoch: number of crops in an epoch. 0 for the number of utterances.
        sampling: each `utterance`, each `speaker`, or each `corpus` of a pool gets the same number of crops.
            Unlabelled crops are drawn separately: from each utterance, or each corpus, as often.
        optimiser: the optimiser.
        learning_rate: the schedule of the learning rate.
        margin: the schedule of the head's margin.
        clip_norm: largest norm of a gradient. Larger ones are scaled down. 0 for no limit.
        precision: precision of the forward pass. `auto` is bf16 on GPUs that support it, else fp32.
        average_last: the final weights are the mean of the weights after each of the last `average_last` epochs.
        batch_norm: batch statistics with several processes. `shared`: over all processes, as if there were one.
            `local`: over the crops of each process, as in DistributedDataParallel; running statistics are averaged.
            `auto`: `shared` below 64 crops per process.
        quantize: products over channels see weights and inputs rounded to 8 bits, as in `model.int8.onnx`. It is meant
            for a few epochs at the end, see docs/export.md.
        unlabelled_share: share of unlabelled crops in an epoch and in each batch, if the training set has unlabelled
            utterances. 0 for their share of the utterances.
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
    quantize: bool = added_later(False)
    unlabelled_share: float = added_later(0.0, 0, 0.99)


@dataclass(frozen=True)
class RuntimeConfig:
    """Device, processes and logs of training. They do not change the result, except for rounding (`threads`, `device`).

    Attributes:
        device: `auto`, `cpu`, `cuda`, or one GPU such as `cuda:1`.
        threads: threads of torch on the CPU. 0 for torch's default.
        workers: processes that read crops. 0 for none. -1 is two for a GPU and none for a CPU.
        log_every: batches between lines in train.log and metrics.jsonl. 0 for one line at the end of an epoch.
        checkpoint_batches: batches between additional checkpoints. 0 for checkpoints only at the end of an epoch.
        keep: number of checkpoints at the ends of epochs that are kept.
        patience: minutes that one of several processes waits for the others.
        compile: use torch.compile for networks and KD terms. `auto`: on GPUs, if a test gives the same loss in less
            time.
        resident_gb: if the features, including noise, have at most this many GB, they are copied to the GPU, and crops
            are made there.
        overlap_gradients: several processes begin to sum gradients before the backward pass ends.
        log_gradients: batches between logs of the gradient norm of each loss, and of the cosine between its gradient
            and that of the classification. 0 for none.
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
