"""The training loop: crops in, a trained model out, with checkpoints to resume from."""

import contextlib
import logging
import math
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.devices import HALF, allow_tf32, device_of, explain_out_of_memory, precision_on
from wespeaker_lite.core.errors import InputError, Stopped
from wespeaker_lite.data.crops import Batch, CropDataset
from wespeaker_lite.data.sampler import EpochSampler
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.recipe.train_config import TrainConfig
from wespeaker_lite.training import schedule
from wespeaker_lite.training.checkpoint import CheckpointStore, random_states, set_random_states
from wespeaker_lite.training.compiling import compile_where_it_pays
from wespeaker_lite.training.distributed import GradientSum, Ranks
from wespeaker_lite.training.gradients import gradients_by_loss
from wespeaker_lite.training.learner import Learner, Losses
from wespeaker_lite.training.meters import Meters, MetricsFile, as_words
from wespeaker_lite.training.optimiser import build_optimiser, set_learning_rate
from wespeaker_lite.training.readings import Reading, Readings
from wespeaker_lite.training.stopping import StopRequest, leave_to_parent

log = logging.getLogger(__name__)

READ_EVERY = 50  # steps, if nothing is logged in between
GPU_WORKERS = 2
ENOUGH_FOR_STATISTICS = 64  # crops of a process; with this many, batch norms can use its own statistics


def batches_of_epoch(train: TrainConfig, utterances: int, processes: int) -> int:
    """The number of batches in an epoch of a training set, which so many processes share.

    Raises:
        InputError: where the crops of an epoch do not fill a batch, or the processes cannot share it.
    """
    crops, size = train.crops_per_epoch or utterances, train.batch_size
    if crops < size:
        raise InputError(f"train.batch_size is {size}, more than the {crops} crops of an epoch")
    if size % processes:
        raise InputError(f"train.batch_size: a batch of {size} cannot be shared evenly by {processes} processes")
    if train.batch_norm == "local" and size < 2 * processes:
        raise InputError(
            f"train.batch_norm is local, and each of {processes} processes has one crop of a batch, which has no "
            "statistics: set train.batch_norm: shared"
        )
    if train.quantize and processes > 1:
        raise InputError("train.quantize: the ranges of inputs are those of one process; train with one GPU or process")
    return crops // size


class Trainer:
    """A training run. It resumes from the newest checkpoint of its folder."""

    def __init__(
        self,
        learner: Learner,
        dataset: CropDataset,
        experiment: Experiment,
        out: Path,
        inputs: Mapping[str, str] | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """Set up training. `inputs`: digests of the files that change the result. `ranks`: the processes."""
        self.learner, self.dataset, self.experiment, self.out = learner, dataset, experiment, out
        self.ranks = ranks or Ranks()
        training = to_mapping(experiment.training_part())
        self.origin = {"training": training, "classes": dataset.classes, "inputs": dict(inputs or {})}
        self.train, self.runtime = experiment.train, experiment.runtime
        self.device = device_of(self.runtime.device)
        self.on_gpu = self.device.type == "cuda"
        allow_tf32(self.device)
        self.precision = precision_on(self.device, self.train.precision)
        if self.train.quantize:
            learner.quantise()
        learner.move_to(self.device)
        self.shares_statistics = self.train.batch_norm == "shared" or (
            self.train.batch_norm == "auto" and self.train.batch_size < ENOUGH_FOR_STATISTICS * self.ranks.count
        )
        if self.on_gpu and dataset.num_bytes <= self.runtime.resident_gb * 1e9:
            dataset.make_resident(self.device)
        self._compile()
        rates = learner.learning_rates()
        self.optimiser = build_optimiser(self.train.optimiser, learner.parameters(), self.on_gpu, rates)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        first = max(1, self.train.epochs - self.train.average_last + 1)
        self.averaged = range(first, self.train.epochs + 1)  # the ends of epochs whose mean is the result
        # One more is kept, to resume from if one of them is damaged.
        self.store = CheckpointStore(out / "checkpoints", max(self.runtime.keep, len(self.averaged) + 1))
        self.batches = batches_of_epoch(self.train, len(dataset), self.ranks.count)
        self.groups, self.labelled = dataset.groups(self.train.sampling), dataset.labelled
        self.gradient_sum = GradientSum(self.ranks, learner, self.runtime.overlap_gradients)
        self.epoch = self.batch = 0  # done so far
        self.meters = Meters()
        self.readings = Readings()

    def run(self) -> None:
        """Train to the end and write `final.pt`, the mean of the weights after the last epochs.

        Raises:
            Stopped: on a signal, after the current batch and a checkpoint.
            InputError: if the loss is not finite, or memory does not suffice.
        """
        with self.ranks.first_goes_first():  # the first rank renames checkpoints of another run
            self._resume()
        self.ranks.synchronise(self.learner, self.shares_statistics)
        if self.ranks.count > 1:
            own = "over all processes" if self.shares_statistics else "of each process' own crops"
            log.info("statistics of batch norms are %s (train.batch_norm: %s)", own, self.train.batch_norm)
        if self.ranks.is_first:
            self.metrics = MetricsFile(self.out / "metrics.jsonl", self.epoch * self.batches + self.batch)
        crops = self.train.batch_size // self.ranks.count
        batch = f"a batch of {crops} crops of {self.experiment.crop.frames} frames (a process) in {self.precision}"
        remedy = f"set train.batch_size lower, or train on more GPUs; the last checkpoint is in {self.store.folder}"
        with StopRequest() as request, explain_out_of_memory(batch, remedy):
            while self.epoch < self.train.epochs:
                self._train_epoch(request)
        if self.ranks.is_first:
            self._finish()

    def _finish(self) -> None:
        self.learner.load_state_dict(self.store.average(len(self.averaged)))
        config = to_mapping(self.experiment)
        student, head = self.learner.plain_student().cpu(), self.learner.head.cpu()
        trained_model.save(
            self.out / "final.pt", trained_model.TrainedModel(config, student, head, self.dataset.classes)
        )
        log.info("wrote %s, the mean of the last %d epochs", self.out / "final.pt", len(self.averaged))

    def _train_epoch(self, request: StopRequest) -> None:
        started, end, stop = time.monotonic(), Meters(), False
        for batch, waited in self._remaining_batches():
            self.readings.add(self._step(batch), waited)
            stop = self.ranks.any(request.signal is not None)  # all ranks stop after the same batch
            self.batch += 1
            is_last = self.batch == self.batches
            saves = not is_last and (stop or self._is_due(self.runtime.checkpoint_batches))
            if is_last or saves or self._is_due(self.runtime.log_every or READ_EVERY):
                self._read(end)
            if not is_last and self._is_due(self.runtime.log_every):
                self._log("batch", self.meters)
            if saves:
                self._save()
            if stop and not is_last:
                raise self._stopped(request)
        self.epoch, self.batch = self.epoch + 1, 0
        self._log(f"done in {time.monotonic() - started:.0f} s", end)
        self._save()
        if stop and self.epoch < self.train.epochs:
            raise self._stopped(request)

    def _read(self, end: Meters) -> None:
        """Add the losses since the last call to the meters. It must be called before anything is logged or saved.

        Raises:
            InputError: if a loss is not finite, naming the utterances of the first such batch.
        """
        steps = self.readings.read(self.ranks)
        for batch, step in enumerate(steps, start=self.batch - len(steps)):
            if not math.isfinite(step.values["loss"]):
                raise InputError(self._not_finite(batch, step))
            for meters in (self.meters, end):
                meters.add(step.values, self.train.batch_size, step.waited)

    def _is_due(self, every: int) -> bool:
        return bool(every) and self.batch % every == 0

    def _stopped(self, request: StopRequest) -> Stopped:
        number = request.signal or signal.SIGTERM  # the signal of another rank is not known
        return Stopped(
            number, f"{number.name}: stopping; a checkpoint is written after epoch {self.epoch}, batch {self.batch}"
        )

    def _remaining_batches(self) -> Iterator[tuple[Batch, float]]:
        """The remaining batches of this epoch, each with the seconds of waiting for it."""
        workers = 0 if self.dataset.is_resident else self.runtime.workers
        loader = DataLoader(
            self.dataset,
            sampler=self._sampler(self.batch),
            batch_size=None,  # an item of the data set is a batch
            num_workers=(GPU_WORKERS if self.on_gpu else 0) if workers < 0 else workers,
            worker_init_fn=leave_to_parent,
            generator=torch.Generator(),  # its own: the state of the global one must not depend on resuming
            pin_memory=self.on_gpu and not self.dataset.is_resident,
        )
        hidden = not sys.stderr.isatty() or not self.ranks.is_first
        bar = tqdm(total=self.batches, initial=self.batch, desc=f"epoch {self.epoch + 1}", disable=hidden)
        asked = time.monotonic()
        for batch in loader:
            yield batch, time.monotonic() - asked
            bar.update()
            asked = time.monotonic()
        bar.close()

    def _sampler(self, start: int) -> EpochSampler:
        """The requests of this epoch, from batch `start` on."""
        return EpochSampler(
            len(self.dataset),
            self.train.batch_size,
            self.experiment.seed,
            self.epoch,
            num_batches=self.batches,
            start_batch=start,
            rank=self.ranks.rank,
            world_size=self.ranks.count,
            groups=self.groups,
            labelled=self.labelled,
            unlabelled_share=self.train.unlabelled_share,
        )

    def _step(self, batch: Batch) -> Losses:
        epoch_now = self.epoch + self.batch / self.batches
        rate = schedule.learning_rate(self.train.learning_rate, epoch_now, self.train.epochs)
        set_learning_rate(self.optimiser, rate)
        self.learner.set_margin(schedule.margin(self.train.margin, self.experiment.head.margin, epoch_now))
        batch = batch.to(self.device)
        with self._autocast():
            losses = self.learner(batch.feats, batch.labels, batch.indices, epoch_now)
        if self._is_due(self.runtime.log_gradients):
            trunk = [parameter for parameter in self.learner.student.parameters() if parameter.requires_grad]
            losses.parts |= gradients_by_loss(losses.weighted, trunk)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(losses.total / self.ranks.count).backward()
        self.gradient_sum.finish()
        if self.train.clip_norm > 0:
            self.scaler.unscale_(self.optimiser)
            torch.nn.utils.clip_grad_norm_(self.learner.parameters(), self.train.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return losses

    def _compile(self) -> None:
        """Compile the networks if the config says so. The test uses a random batch of the size of training."""
        choice, ranks = self.runtime.compile, self.ranks.count
        if choice == "off" or (choice == "auto" and not self.on_gpu):
            return
        if self.train.quantize:
            log.info("training continues without torch.compile: its test would change the ranges of train.quantize")
            return
        if ranks > 1 and self.shares_statistics:
            log.info("training continues without torch.compile: batch norms send messages (train.batch_norm: shared)")
            return
        crops = self.train.batch_size // ranks
        rng = torch.Generator().manual_seed(0)  # its own, so that compiling does not change training
        feats = torch.randn(crops, self.experiment.crop.frames, self.dataset.num_mels, generator=rng).to(self.device)
        labels = torch.arange(crops, device=self.device) % len(self.dataset.classes)

        def step() -> torch.Tensor:
            self.learner.zero_grad(set_to_none=True)
            with self._autocast():
                total = self.learner(feats, labels, labels % len(self.dataset), 0.0).total
            total.backward()
            return total.detach()

        compile_where_it_pays(self.learner, choice, step)

    def _autocast(self) -> contextlib.AbstractContextManager:
        dtype = HALF.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def _not_finite(self, number: int, step: Reading) -> str:
        """The message for a loss that is not finite. It names the utterances with bad features, or else the batch."""
        batch = self.dataset[next(iter(self._sampler(number)))]  # a batch is the same when it is read again
        finite = batch.to("cpu").feats.isfinite().flatten(1).all(1)
        bad = batch.indices[~finite].tolist()
        named = [self.dataset.utterances[index] for index in bad or batch.indices.tolist()]
        parts = as_words({name: value for name, value in step.values.items() if name not in ("loss", "accuracy")})
        cause = "utterances with features that are not finite" if bad else "features are finite; the batch holds"
        return (
            f"the loss is not finite at epoch {self.epoch + 1}, batch {number + 1} ({parts}); {cause}: "
            f"{' '.join(named)}; the last checkpoint is in {self.store.folder}"
        )

    def _log(self, what: str, meters: Meters) -> None:
        if not self.ranks.is_first:
            return
        summary = meters.summary()
        epoch = self.epoch if self.batch == 0 else self.epoch + 1
        position = {"step": self.epoch * self.batches + self.batch, "epoch": epoch, "batch": self.batch}
        state = {"lr": self.optimiser.param_groups[0]["lr"], "margin": self.learner.head.margin}
        self.metrics.append({**position, "event": what.split()[0], **state, **summary})
        number = f" {self.batch}/{self.batches}" if self.batch else ""
        log.info("epoch %d/%d %s%s: %s", epoch, self.train.epochs, what, number, as_words({**summary, **state}))
        meters.clear()

    def _save(self) -> None:
        if not self.shares_statistics:
            self.ranks.average_statistics(self.learner)
        if not self.ranks.is_first:
            return
        record = {
            **self.origin,
            "epoch": self.epoch,
            "batch": self.batch,
            "learner": self.learner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(),
        }
        self.store.save(self.epoch, self.batch, record)

    def _resume(self) -> None:
        """Resume from the newest checkpoint. Checkpoints of another config or other inputs are moved, not resumed."""
        record = self.store.latest()
        if record is None:
            return
        changed = [name for name, value in self.origin.items() if record[name] != value]
        if changed:
            self.store.set_aside(changed)
            return
        if self.store.drop_after_gap(self.averaged, self.origin):
            record = self.store.latest()
            if record is None:
                return
        try:
            self.learner.load_state_dict(record["learner"])
        except RuntimeError as error:
            raise InputError(
                f"{self.store.folder}: the checkpoints do not fit the network that this version builds from this "
                "config; move them away to train again"
            ) from error
        for group in record["optimiser"]["param_groups"]:
            group["fused"] = self.on_gpu or None  # by this device, not the one of the checkpoint
        self.optimiser.load_state_dict(record["optimiser"])
        self.scaler.load_state_dict(record["scaler"])
        set_random_states(record["random"])
        self.epoch, self.batch = record["epoch"], record["batch"]
        log.info("resuming after epoch %d, batch %d", self.epoch, self.batch)
