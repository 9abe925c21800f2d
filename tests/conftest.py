"""Fixtures for all tests, such as the folder of real speech."""

import os
from pathlib import Path

import pytest

# Tests run side by side; and a result that is compared bit for bit must not depend on who ran before.
os.environ["OMP_NUM_THREADS"] = "1"

# The folders whose files take minutes go to the workers first: at the end, one would wait for the other.
LONG = ("end_to_end", "cluster", "training", "tools")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real speech. Tests that need it are skipped if it does not exist."""
    folder = Path(os.environ.get("WESPEAKER_LITE_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real speech in {folder}")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first, in the order of LONG."""
    items.sort(key=lambda item: LONG.index(item.path.parent.name) if item.path.parent.name in LONG else len(LONG))
