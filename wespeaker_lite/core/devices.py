"""The device that a program computes on: found by its name, set up, and what is said when its memory is full."""

import contextlib
import re
from collections.abc import Iterator
from typing import Literal

import torch

from wespeaker_lite.core.errors import InputError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(name: str, where: str = "runtime.device") -> torch.device:
    """Find a device by name: auto, cpu, cuda, cuda:1 ...; auto is the GPU where there is one.

    Raises:
        InputError: naming `where` the name was given, where there is no such device or it cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"{where} {name!r}: {str(error).splitlines()[0]}") from error
    return device


def precision_on(device: torch.device, precision: str) -> Literal["fp32", "bf16", "fp16"]:
    """What `train.precision` is on a device: auto is bf16 on GPUs that compute in it, and fp32 elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def allow_tf32(device: torch.device) -> None:
    """On GPUs, let float32 matrix products and convolutions round their inputs to TF32; on CPUs nothing changes."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


@contextlib.contextmanager
def memory_full_said(what: str, remedy: str) -> Iterator[None]:
    """Say in one line that the memory of GPU or CPU does not suffice for `what`, and what to do.

    Raises:
        InputError: in the place of torch's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in said:
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", said)
        more = f"{asked[1]} more were asked for" if asked else "more was asked for than there is"
        where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        raise InputError(f"{where} does not suffice for {what}: {more}; {remedy}") from error
