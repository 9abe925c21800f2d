"""What the tests of the whole recipe share."""

from pathlib import Path

import pytest

from tests.end_to_end.checkout import Checkout, make_checkout


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The copy, with all stages done once."""
    copy = make_checkout(repository, tmp_path_factory.mktemp("recipe") / "checkout")
    copy.good()
    return copy
