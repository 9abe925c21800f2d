"""The device that a program computes on: selection, set-up, and errors when its memory is full."""

import contextlib
import re
from collections.abc import Iterator
from typing import Literal

import torch

from wespeaker_lite.core.errors import InputError

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def device_of(name: str, where: str = "runtime.device") -> torch.device:
    """Find a device by name: auto, cpu, cuda, cuda:1 ... `auto` is the GPU if there is one.

    Raises:
        InputError: beginning with `where`, if the device does not exist or cannot be used.
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
    """Resolve `train.precision` for a device: `auto` is bf16 on GPUs that support it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def allow_tf32(device: torch.device) -> None:
    """On a GPU, let float32 matrix products and convolutions round their inputs to TF32."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


@contextlib.contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of torch into one line: what needed the memory, and what to do.

    Raises:
        InputError: instead of torch's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        message = str(error)
        if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "can't allocate memory" not in message:
            raise
        needed = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", message)
        more = f"{needed[1]} more are needed" if needed else "more is needed than there is"
        where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        raise InputError(f"{where} is too small for {what}: {more}; {remedy}") from error
