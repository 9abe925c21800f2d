"""Training and inference compared with a plain loop and with the limits of the machine; with small sizes on a CPU.

    python -m tests.benchmarks.gpu [--device cuda] [--confs bc_cmt_tiny ecapa_c512] [--batches 128 512] [--rounds 5]

A step is forward, backward, clipping and optimiser, on random crops of 2 s and 17,982 classes. Ours has precision auto,
a fused optimiser, and keeps losses on the device. The plain loops, in fp32 and with autocast, read loss and accuracy in
each step, as wespeaker does, and have plain layers of BC-CMT on (B, C, F, T). All take turns; medians are printed.
The limit is the larger of bytes / copy bandwidth and operations / rate of matrix products, both measured here. Bytes
are those that all operations of a step read and write, so fused kernels can be faster than the limit.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from tests.models.plain_bc_cmt import PlainNetwork
from tests.training.learners import TERMS, Teacher
from wespeaker_lite import distill, models
from wespeaker_lite.core import plugins
from wespeaker_lite.core.devices import HALF, allow_tf32, precision_on
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import outputs_for_silence
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import build_head
from wespeaker_lite.recipe.experiment import Experiment, load
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.learner import Learner
from wespeaker_lite.training.optimiser import build_optimiser

CLASSES = 17982
CONFS = ("bc_cmt_tiny", "bc_cmt_base", "ecapa_c512", "resnet18", "resnet34")
VIEWS = ("view", "t", "transpose", "permute", "slice", "select", "expand", "unsqueeze", "detach", "as_strided", "split")


class Traffic(TorchDispatchMode):
    """Counts the operations that are not views, and the bytes of the tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.overloadpacket.__name__.strip("_").startswith(VIEWS):
            self.calls += 1
            tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, result)) if torch.is_tensor(t)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


class Bench:
    """The device, its measured limits, and timing in turns."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.args = torch.device(args.device), args
        allow_tf32(self.device)
        self.precision = precision_on(self.device, "auto")
        self.bandwidth, self.rate = self._bandwidth(), self._rate()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, *runs: Callable[[], object]) -> list[float]:
        """Median seconds of each; they take turns, and the first two turns are a warm-up."""
        times: list[list[float]] = [[] for _ in runs]
        for turn in range(self.args.rounds + 2):
            for run, taken in zip(runs, times, strict=True):
                self.wait()
                started = time.perf_counter()
                for _ in range(self.args.steps):
                    run()
                self.wait()
                if turn > 1:
                    taken.append((time.perf_counter() - started) / self.args.steps)
        return [statistics.median(taken) for taken in times]

    def _bandwidth(self) -> float:
        source = torch.ones(1 << (28 if self.device.type == "cuda" else 24), device=self.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source))[0]

    def _rate(self) -> float:
        size = 8192 if self.device.type == "cuda" else 512
        dtype = HALF.get(self.precision, torch.float32)
        left = torch.randn(size, size, device=self.device, dtype=dtype)
        return 2 * size**3 / self.seconds(lambda: left @ left)[0]

    def limit(self, step: Callable[[], object]) -> tuple[int, float]:
        """Operations of a step, and its lower bound in seconds."""
        with FlopCounterMode(display=False) as flops, Traffic() as traffic:
            step()
        return traffic.calls, max(traffic.bytes / self.bandwidth, flops.get_total_flops() / self.rate)


def made_batch(bench: Bench, batch: int, mels: int) -> tuple[torch.Tensor, torch.Tensor]:
    feats = torch.randn(batch, bench.args.frames, mels, device=bench.device)
    return feats, torch.randint(bench.args.classes, (batch,), device=bench.device)


def our_step(bench: Bench, learner: Learner, experiment: Experiment, batch: int) -> Callable[[], torch.Tensor]:
    """A step as in the trainer."""
    learner.move_to(bench.device)
    on_gpu = bench.device.type == "cuda"
    optimiser = build_optimiser(experiment.train.optimiser, learner.parameters(), fused=on_gpu)
    feats, labels = made_batch(bench, batch, experiment.features.num_mels)
    dtype = HALF.get(bench.precision)

    def step() -> torch.Tensor:
        with torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
            losses = learner(feats, labels, labels, 1.0)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
        optimiser.step()
        return losses.total.detach()

    return step


def plain_step(bench: Bench, network: nn.Module, experiment: Experiment, batch: int, amp: bool) -> Callable[[], None]:
    """A step of a plain loop, which reads loss and accuracy on the host."""
    head = build_head({}, network.embed_dim, bench.args.classes)
    parts = nn.ModuleList([network, head]).to(bench.device).train()
    optimiser = torch.optim.SGD(parts.parameters(), lr=1e-6, momentum=0.9, nesterov=True, weight_decay=1e-4)
    feats, labels = made_batch(bench, batch, experiment.features.num_mels)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=amp and bench.device.type == "cuda")
    dtype = torch.float16 if bench.device.type == "cuda" else torch.bfloat16

    def step() -> None:
        with torch.autocast(bench.device.type, dtype, enabled=amp):
            logits = head(network(feats), labels)
            loss = nn.functional.cross_entropy(logits, labels)
        loss.item()
        (logits.argmax(1).cpu() == labels.cpu()).float().mean().item()
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 5.0)
        scaler.step(optimiser)
        scaler.update()

    return step


def plain_network(experiment: Experiment) -> nn.Module:
    """The network in plain layers, (B, C, F, T)."""
    network = models.build(experiment.model["name"], experiment.model, experiment.features.num_mels)
    if experiment.model["name"] != "bc_cmt":
        return network
    plain = PlainNetwork(plugins.find(models.__name__, experiment.model, "model")[1]).load(network)
    plain.embed_dim = network.embed_dim
    return plain


def taught_learner(bench: Bench, experiment: Experiment, term: str) -> Learner:
    """A learner with one KD term and an untrained teacher of the same architecture.

    Raises:
        InputError: if the network does not return what the term needs.
    """
    mels, frames, classes = experiment.features.num_mels, bench.args.frames, bench.args.classes
    student, other = (models.build(experiment.model["name"], experiment.model, mels) for _ in range(2))
    teacher = Teacher(other)
    teacher.head = build_head({}, other.embed_dim, classes)
    shown, taught = outputs_for_silence(student, frames, mels), outputs_for_silence(other, frames, mels, teacher.head)
    terms = distill.build_terms([{"name": term}], Partners(shown, taught, experiment.head, classes, frames))
    return Learner(student, build_head({}, student.embed_dim, classes), terms, teacher)


def compare_training(bench: Bench, conf: str, batch: int) -> None:
    """Print the line of a network at a batch size."""
    experiment = load(f"conf/{conf}.yaml")
    names = SimpleNamespace(classes=[str(number) for number in range(bench.args.classes)])
    ours = our_step(bench, build_learner(experiment, names), experiment, batch)
    plain = [plain_step(bench, plain_network(experiment), experiment, batch, amp) for amp in (False, True)]
    calls, least = bench.limit(ours)
    times = bench.seconds(ours, *plain)
    rates = [batch / taken for taken in times]
    print(
        f"{conf:12} {batch:5} {rates[0]:10.1f} {rates[1]:10.1f} {rates[2]:10.1f} {times[1] / times[0]:6.2f} "
        f"{times[2] / times[0]:6.2f} {calls:6} {100 * least / times[0]:6.1f} %",
        flush=True,
    )


def compare_layouts(bench: Bench, batch: int) -> None:
    """Compare three versions of BC-CMT: our layers, plain ones, and compiled plain ones (on GPUs)."""
    experiment = load("conf/bc_cmt_tiny.yaml")
    feats, _ = made_batch(bench, batch, experiment.features.num_mels)
    fast = models.build("bc_cmt", experiment.model, experiment.features.num_mels)
    kinds = {"our layers": fast, "plain layers": plain_network(experiment)}
    if bench.device.type == "cuda":
        kinds["plain layers, compiled"] = torch.compile(plain_network(experiment).to(bench.device))
    dtype = HALF.get(bench.precision)

    def step_of(network: nn.Module) -> Callable[[], None]:
        network.to(bench.device).train()

        def step() -> None:
            network.zero_grad()
            with torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
                embedding = network(feats)
            embedding.float().square().sum().backward()

        return step

    times = bench.seconds(*map(step_of, kinds.values()))
    said = ", ".join(f"{name} {batch / taken:.1f}" for name, taken in zip(kinds, times, strict=True))
    print(f"bc_cmt_tiny, forward and backward, crops/s at batch {batch}: {said}", flush=True)


def compare_terms(bench: Bench, conf: str, batch: int) -> None:
    """Print crops/s with each KD term."""
    experiment = load(f"conf/{conf}.yaml")
    for term in TERMS:
        try:
            learner = taught_learner(bench, experiment, term)
        except InputError:
            continue  # the network does not return what the term needs
        taken = bench.seconds(our_step(bench, learner, experiment, batch))[0]
        print(f"{conf} with {term}: {batch / taken:.1f} crops/s at batch {batch}", flush=True)


@torch.inference_mode()
def time_inference(bench: Bench, conf: str) -> None:
    """Print latencies."""
    experiment = load(f"conf/{conf}.yaml")
    network = models.build(experiment.model["name"], experiment.model, experiment.features.num_mels)
    network.to(bench.device).eval()
    said = []
    for batch in bench.args.inference_batches:
        for seconds in (1, 10):
            feats = torch.randn(batch, 100 * seconds, experiment.features.num_mels, device=bench.device)
            taken = bench.seconds(lambda x=feats: network(x).cpu())[0]
            said.append(f"{seconds} s at batch {batch}: {1e3 * taken:.2f} ms ({batch / taken:.0f} utterances/s)")
    print(f"{conf}: {', '.join(said)}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--confs", nargs="+")
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--inference-batches", nargs="+", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--classes", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int, help="steps in a turn")
    args = parser.parse_args()
    small = args.device == "cpu"
    sizes = {"confs": ["bc_cmt_tiny", "ecapa_c128"], "batches": [4], "inference_batches": [1], "frames": 50}
    large = {"confs": list(CONFS), "batches": [128, 512], "inference_batches": [1, 64], "frames": 200}
    defaults = (
        (sizes | {"classes": 100, "rounds": 1, "steps": 1})
        if small
        else (large | {"classes": CLASSES, "rounds": 5, "steps": 5})
    )
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    torch.manual_seed(0)
    bench = Bench(args)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "a CPU, at small sizes"
    print(f"{name}: copies {bench.bandwidth / 1e9:.0f} GB/s, matrix products {bench.rate / 1e12:.2f} T/s, "
          f"{bench.precision}, {args.frames} frames, {args.classes} classes")  # fmt: skip
    print(f"{'crops/s':12} batch       ours plain fp32  plain AMP  times  times    ops  of limit")
    for conf in args.confs:
        for batch in args.batches:
            with contextlib.suppress(torch.OutOfMemoryError):
                compare_training(bench, conf, batch)
    compare_layouts(bench, args.batches[0])
    compare_terms(bench, args.confs[0], args.batches[0])
    for conf in args.confs:
        time_inference(bench, conf)


if __name__ == "__main__":
    main()
