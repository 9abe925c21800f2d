"""Training of one network by several processes (ranks).

Each rank processes its share of every batch. Gradients and logged losses are those of the whole batch, as are the
statistics of batch norms, if these are shared. Then the result depends on the batch size, but not on the number of
ranks, except for the order of floating-point sums.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.broadcasting import SubSpectralNorm
from wespeaker_lite.training.watch import Watch


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    count: int = 1
    watch: Watch = field(default_factory=Watch, compare=False)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes the files."""
        return self.rank == 0

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Run the `with` block in the first rank, and then in the others."""
        if not self.is_first:
            dist.barrier()
            self.watch.beat()
        yield
        if self.is_first and self.count > 1:
            dist.barrier()

    def synchronise(self, module: nn.Module, shared: bool = True) -> None:
        """Prepare a module for training by all ranks. With `shared`, batch norms use the statistics of all ranks.

        Raises:
            RuntimeError: if this rank has other weights than the first, because it read another checkpoint.
        """
        if self.count == 1:
            return
        mine = torch.stack([value.detach().double().sum() for value in (*module.parameters(), *module.buffers())])
        first = mine.clone()
        dist.broadcast(first, src=0)
        if not torch.equal(mine, first):
            raise RuntimeError(f"rank {self.rank} has other weights than rank 0: do both see the same checkpoints?")
        if shared:
            share_statistics(module)

    def average_statistics(self, module: nn.Module) -> None:
        """Average the running statistics over ranks that have their own.

        The update of running statistics is linear, so that it does not matter after which steps they are averaged.
        """
        norms = [child for child in module.modules() if getattr(child, "running_mean", None) is not None]
        statistics = [values for norm in norms for values in (norm.running_mean, norm.running_var)]
        if self.count == 1 or not statistics:
            return
        mean = self.mean(torch.cat([values.flatten() for values in statistics]))
        for values, part in zip(statistics, mean.split([values.numel() for values in statistics]), strict=True):
            values.copy_(part.view_as(values))

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks, element by element. All ranks must have values of the same shape."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        self.watch.beat()
        return total / self.count

    def any(self, mine: bool) -> bool:
        """Whether `mine` is true in any rank. The message is sent between hosts, without waiting for a GPU."""
        if self.count == 1:
            return mine
        total = torch.tensor([float(mine)])
        dist.all_reduce(total)
        self.watch.beat()
        return total.item() > 0


@contextlib.contextmanager
def joined_ranks(device: str, patience: float = 30.0) -> Iterator[Ranks]:
    """Join the processes that torchrun started, by its environment variables. Without them, there is one rank.

    patience: minutes that a rank waits for the others. The longest wait is for rank 0 to average checkpoints.

    Raises:
        InputError: if the others do not answer within `patience`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    backend = _take_gpu(device, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=datetime.timedelta(minutes=patience))
    who = f"rank {dist.get_rank()} of {count}"
    watch = Watch(who, 60 * patience)
    watch.start()
    try:
        yield Ranks(dist.get_rank(), count, watch)
    except RuntimeError as error:
        if "timed out" not in str(error).lower():
            raise
        raise InputError(
            f"{who}: the others did not answer for {patience:g} minutes (runtime.patience): one of them, or its "
            "machine, has stopped; training resumes from the last checkpoint"
        ) from error
    finally:
        watch.end()
        dist.destroy_process_group()


class GradientSum:
    """Sums the gradients of all ranks. The gradient of a parameter that a rank did not use counts as 0.

    overlapped: send messages of some megabytes, each as soon as its gradients are computed, while the backward pass
    continues. Otherwise, send one message at the end.
    """

    MESSAGE = 1 << 22  # bytes, unless one parameter is larger

    def __init__(self, ranks: Ranks, module: nn.Module, overlapped: bool) -> None:
        # Gradients are computed from the last layer to the first.
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad][::-1]
        self.messages: list[list[nn.Parameter]] = [[]] if ranks.count > 1 and parameters else []
        self.sent: list[tuple[Tensor, dist.Work]] = []
        self.missing: list[int] = []
        size = 0
        for parameter in parameters if self.messages else []:
            if overlapped and self.messages[-1] and size + parameter.nbytes > self.MESSAGE:
                self.messages.append([])
                size = 0
            if overlapped:
                number = len(self.messages) - 1
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._count_gradient(number))
            self.messages[-1].append(parameter)
            size += parameter.nbytes
        self._begin()

    def _begin(self) -> None:
        self.sent = []
        self.missing = [len(message) for message in self.messages]

    def _count_gradient(self, number: int) -> None:
        self.missing[number] -= 1
        # Messages must be sent in the same order in all ranks, so each waits for those before it.
        while len(self.sent) < len(self.messages) and self.missing[len(self.sent)] == 0:
            self._send()

    def _send(self) -> None:
        message = self.messages[len(self.sent)]
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in message])
        self.sent.append((flat, dist.all_reduce(flat, async_op=True)))

    def finish(self) -> None:
        """After the backward pass, send the remaining messages, and replace the gradients by the sums."""
        while len(self.sent) < len(self.messages):
            self._send()
        for message, (flat, work) in zip(self.messages, self.sent, strict=True):
            work.wait()
            for parameter, part in zip(message, flat.split([p.numel() for p in message]), strict=True):
                parameter.grad = part.view_as(parameter)
        self._begin()


def _take_gpu(device: str, local_rank: int) -> str:
    """Select the GPU of this rank among those of its node; return the backend of torch.distributed.

    Messages between hosts always use gloo. nccl supports neither ranks that share a GPU, as with a device number in the
    config, nor instances of one GPU (MIG).

    Raises:
        InputError: if there are fewer GPUs than ranks on this node.
    """
    if device == "cpu":
        return "gloo"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else []
    instances = any(name.startswith("MIG-") for name in names)
    if instances and local_rank < len(names):
        # A process can use only the first instance in this variable, which must be set before CUDA is used.
        os.environ["CUDA_VISIBLE_DEVICES"] = names[local_rank]
    if not torch.cuda.is_available() and device == "auto":
        return "gloo"
    offered = len(names) if instances else torch.cuda.device_count()
    if ":" in device:
        torch.cuda.set_device(torch.device(device))
        return "gloo"
    if local_rank >= offered:
        raise InputError(
            f"process {local_rank + 1} of this node has no GPU: there are {offered} (CUDA_VISIBLE_DEVICES "
            f"{'is not set' if visible is None else visible}); set --processes, or --gpu, to this number"
        )
    torch.cuda.set_device(0 if instances else local_rank)
    return "gloo" if instances else "cpu:gloo,cuda:nccl"


def share_statistics(module: nn.Module) -> None:
    """Make all batch norms of a module use the statistics of the whole batch, not of this rank's share."""
    for child in module.modules():
        if type(child) in SHARED:
            # The object and its parameters stay the same, because the optimiser and other layers refer to them.
            child.__class__ = SHARED[type(child)]


class _Sum(torch.autograd.Function):
    """The sum over ranks. Its gradient is summed too, because the losses of all ranks depend on it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.apply(grad)


def _normalise(norm: nn.Module, maps: Tensor, channel_dim: int) -> Tensor:
    """Batch norm by mean and variance over all ranks, in float32. Running statistics are updated as in torch."""
    dims = [dim for dim in range(maps.dim()) if dim != channel_dim]
    shape = [-1 if dim == channel_dim else 1 for dim in range(maps.dim())]
    with torch.autocast(maps.device.type, enabled=False):
        values = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
        size = values.new_full((1,), values.numel() / values.shape[channel_dim])
        sums = _Sum.apply(torch.cat([values.sum(dims), size]))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        with torch.no_grad():
            norm.running_mean.lerp_(mean.view_as(norm.running_mean), norm.momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            norm.running_var.lerp_(unbiased.view_as(norm.running_var), norm.momentum)
        normalised = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.weight is not None:
            normalised = torch.addcmul(norm.bias.flatten().view(shape), normalised, norm.weight.flatten().view(shape))
        return normalised.to(maps.dtype)


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over all ranks, on any device. torch's SyncBatchNorm is for GPUs only."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions. Channels are dimension 1."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self.num_batches_tracked += 1
        return _normalise(self, input, channel_dim=1)


class SharedSubSpectralNorm(SubSpectralNorm):
    """Sub-spectral normalisation over all ranks: maps (F, B, T, C) -> the same."""

    def forward(self, maps: Tensor) -> Tensor:
        bands, channels = self.weight.shape
        grouped = maps.reshape(bands, -1, channels).transpose(0, 1).flatten(1)
        normalised = _normalise(self, grouped, channel_dim=1)
        return normalised.unflatten(1, (bands, channels)).transpose(0, 1).reshape(maps.shape)


SHARED: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: SharedBatchNorm,
    nn.BatchNorm2d: SharedBatchNorm,
    SubSpectralNorm: SharedSubSpectralNorm,
}
