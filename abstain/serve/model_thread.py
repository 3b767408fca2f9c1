"""The one thread that computes with the model, from loading it to the last answer.

OpenMP keeps a team of workers for every thread that has computed once. A second team on the same
cores makes both sleep and wake at each small operation: answers took half as long again where one
thread had loaded the model and another one ran it (2 cores, libgomp).
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class ModelThread:
    """Does what it is given, one thing after the other; it ends with the process."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="model", daemon=True).start()

    def do(self, job: Callable[[], Result]) -> "Future[Result]":
        """Have it do something; what that raises is raised by the future's ``result``."""
        done: Future[Result] = Future()
        self._jobs.put((job, done))
        return done

    def _work(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - it belongs to who asked for it
                done.set_exception(error)
