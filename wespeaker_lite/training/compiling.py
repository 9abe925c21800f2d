"""torch.compile for networks and KD terms. It is used only if it works, gives the same loss, and is faster."""

import copy
import logging
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wespeaker_lite.training.checkpoint import random_states, set_random_states
from wespeaker_lite.training.learner import Learner

log = logging.getLogger(__name__)

BACKEND = "inductor"
SAME = 0.02  # the largest relative difference of a loss that half precision explains
TIMED = 5  # steps


def compile_where_it_pays(learner: Learner, choice: str, step: Callable[[], Tensor]) -> bool:
    """Compile a learner. `on` keeps this if it works, `auto` if it is also faster. Weights and random states are kept.

    step: runs a forward and a backward pass on random crops, and returns the loss. The reason for the decision is
    logged.
    """
    kept, states = copy.deepcopy(learner.state_dict()), random_states()
    repeats = TIMED if choice == "auto" else 0
    try:
        loss, seconds = _try_out(step, repeats)
        learner.load_state_dict(kept)
        set_random_states(states)
        log.info("compiling the networks (runtime.compile: %s); this can take minutes", choice)
        _switch_on(learner)
        reason = _why_not(loss, seconds, *_try_out(step, repeats))
    except Exception as error:  # a compiler can raise any exception; it is logged below
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    learner.load_state_dict(kept)
    learner.zero_grad(set_to_none=True)
    set_random_states(states)
    if reason:
        _switch_off(learner)
        log.info("training continues without torch.compile: %s", reason)
    return not reason


def _try_out(step: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """The loss of a first step, and the mean seconds of those after it."""
    loss = step().item()
    if not repeats:
        return loss, 0.0
    step().item()
    started = time.perf_counter()
    for _ in range(repeats):
        last = step()
    last.item()  # waits for all steps
    return loss, (time.perf_counter() - started) / repeats


def _why_not(plain: float, plain_seconds: float, compiled: float, seconds: float) -> str:
    if not abs(compiled - plain) <= SAME * abs(plain):
        return f"it gives a loss of {compiled:.6g} instead of {plain:.6g}"
    if seconds > plain_seconds:
        return f"a step takes {1e3 * seconds:.1f} ms instead of {1e3 * plain_seconds:.1f} ms"
    if seconds:
        log.info("compiled, a step takes %.1f ms instead of %.1f ms", 1e3 * seconds, 1e3 * plain_seconds)
    return ""


def _networks(learner: Learner) -> list[nn.Module]:
    teacher = learner.teacher
    return [learner.student, *([teacher.model] if hasattr(teacher, "model") else [])]


def _switch_on(learner: Learner) -> None:
    """Compile in place, so that the names of parameters do not change."""
    for network in _networks(learner):
        network.compile(backend=BACKEND)
        if hasattr(network, "activations"):
            network.activations = torch.compile(network.activations, backend=BACKEND)
    for term in learner.terms.values():
        term.compile(backend=BACKEND)


def _switch_off(learner: Learner) -> None:
    for module in (*_networks(learner), *learner.terms.values()):
        module._compiled_call_impl = None
        vars(module).pop("activations", None)
