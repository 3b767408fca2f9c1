"""Processes that work beside the main one, and end with it."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Map = Callable[..., Iterator[Any]]


@contextlib.contextmanager
def mapping(workers: int) -> Iterator[Map]:
    """`map`, done by so many processes; results come in the order of what they are made of."""
    if workers < 2:
        yield map
        return
    # Started afresh: a fork would carry the main process's memory and threads along.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        yield pool.map


def _end_with_parent() -> None:
    """Have a worker end when its parent is killed: else it waits for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
