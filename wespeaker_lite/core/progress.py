"""Progress of long work."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)

Item = TypeVar("Item")


def with_progress(
    items: Iterable[Item], total: int, what: str, size: Callable[[Item], int] = lambda _: 1
) -> Iterator[Item]:
    """Yield the items, of `total` size. A terminal shows a bar; a log gets a line at every tenth."""
    with tqdm(total=total, desc=what, disable=not sys.stderr.isatty()) as bar:
        done = 0
        for item in items:
            yield item
            before, done = done, done + size(item)
            bar.update(done - before)
            if bar.disable and done * 10 // total > before * 10 // total:
                log.info("%d of %d %s", done, total, what)
