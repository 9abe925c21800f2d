"""How far long work has come."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """Yield the items; show a bar on a terminal, and elsewhere a line at each tenth of the way."""
    with tqdm(total=total, desc=what, disable=not sys.stderr.isatty()) as bar:
        for number, item in enumerate(items, start=1):
            yield item
            bar.update()
            if bar.disable and number * 10 // total > (number - 1) * 10 // total:
                log.info("%d of %d %s", number, total, what)
