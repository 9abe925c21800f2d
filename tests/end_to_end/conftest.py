"""Fixtures of the tests of the whole recipe."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.checkout import Checkout, make_checkout
from tests.soak.server import serving


@pytest.fixture(scope="module")
def checkout(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Checkout]:
    """A copy of the repository in which all stages have run once.

    In modules with FROM_SERVER, programs are forks of a process that has imported torch, in a third of the time.
    """
    copy = make_checkout(repository, tmp_path_factory.mktemp("recipe") / "checkout")
    with ExitStack() as stack:
        if getattr(request.module, "FROM_SERVER", False):
            copy.environment |= stack.enter_context(serving(copy.folder))
        copy.good()
        yield copy
