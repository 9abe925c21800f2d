"""Fuzz tests: any content of a file or an option gives an error message or a correct result.

In CI they try a few examples, always the same. To try thousands of new ones, and keep the failures in .hypothesis/:

    python -m pytest tests/fuzz --hypothesis-profile=long
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.limits import little_memory

settings.register_profile("long", max_examples=5000, deadline=None)

_ROOM = 1 << 30  # bytes that a test may take: a header's claim of 2^31 x 2^31 values must not be believed


def pytest_report_header() -> str:
    return "fuzz: few examples, always the same; more: python -m pytest tests/fuzz --hypothesis-profile=long"


@pytest.fixture(scope="module", autouse=True)
def _little_memory() -> Iterator[None]:
    with little_memory(_ROOM):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a module: each example overwrites the files."""
    return tmp_path_factory.mktemp("fuzz")
