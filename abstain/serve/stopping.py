"""A server that stops without leaving anyone standing who had come before."""

import asyncio
import contextlib
import select
import socket
import sys
from typing import Any

import uvicorn

_TO_SPEAK = 20  # tenths of a second in which whoever is connected may still say what he wants
_TURNS = 100  # at most: under load somebody always comes


class PatientServer(uvicorn.Server):
    """uvicorn, but stopping takes in those whom the kernel has already let into the queue.

    uvicorn closes the listening socket at once: the kernel then resets connections which it had
    accepted and the process had not, and uvicorn drops those that have not sent their request yet.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept who waits, close the door, let them speak; then as uvicorn does."""
        doors = [door.fileno() for server in self.servers for door in server.sockets]
        for _ in range(_TURNS):
            if not select.select(doors, [], [], 0)[0]:
                break
            await asyncio.sleep(0)
        for server in self.servers:
            server.close()
        for _ in range(_TO_SPEAK):
            await asyncio.sleep(0.1)
            if all(_has_spoken(one) for one in self.server_state.connections):
                break
        await super().shutdown(sockets)


def _has_spoken(connection: Any) -> bool:
    return getattr(connection, "cycle", connection) is not None


def run(config: uvicorn.Config) -> None:
    """Serve until told to stop; the process ends with uvicorn's code where it cannot start."""
    server = PatientServer(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when it has stopped
        server.run()
    if not server.started:
        sys.exit(3)
