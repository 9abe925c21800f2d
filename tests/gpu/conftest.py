"""Tests on a GPU. Without one they are skipped; with WESPEAKER_LITE_GPU_TESTS=cpu they run on a CPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.conftest import small, small_data  # noqa: F401  # fixtures
from tests.training.test_noisy_training import noise  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in this folder."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The GPU, with full float32 precision; or the CPU in a dry run."""
    if os.environ.get("WESPEAKER_LITE_GPU_TESTS") == "cpu":
        yield torch.device("cpu")
        return
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU; bash tests/gpu/run.sh --device cpu runs this on a CPU")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device("cuda")
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
