"""SQLSTATE of a refused connection, which libpq keeps to itself: read from its own trace of the protocol.

The message of a refusal is in the language of the server (lc_messages), which no client can choose before it is let
in; the code in the same message is not. A libpq older than 18 does not trace that part: then nothing is known.
"""

from __future__ import annotations

import os
import re
import selectors
import time
from collections import OrderedDict
from collections.abc import Mapping

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.pq import PollingStatus
from psycopg.pq.abc import PGconn

CODE = re.compile(rb'\tErrorResponse\t.*? C "([0-9A-Z]{5})"')
REMEMBERED = 1000
_known: OrderedDict[str, tuple[str, ...]] = OrderedDict()


def sqlstates(parameters: Mapping[str, str | int | None], words: str, timeout: float = 10.0) -> tuple[str, ...]:
    """The codes of the errors by which the server refuses such a connection, one for each message in ``words``.

    Connects once more for that, and not again for the same words: a trace costs some memory that libpq never frees.
    """
    if words not in _known:
        _known[words] = _trace(make_conninfo("", **dict(parameters)), timeout)
        while len(_known) > REMEMBERED:
            _known.popitem(last=False)
    return _known[words]


def _trace(conninfo: str, timeout: float) -> tuple[str, ...]:
    if not hasattr(os, "memfd_create"):
        return ()
    # In memory only: what is sent is in the trace as well.
    file = os.memfd_create("partwarden-trace")
    try:
        connection = pq.PGconn.connect_start(conninfo.encode())
        try:
            connection.trace(file)
            _poll(connection, time.monotonic() + timeout)
            connection.untrace()
        finally:
            connection.finish()
        os.lseek(file, 0, os.SEEK_SET)
        return tuple(code.decode() for code in CODE.findall(os.read(file, 1 << 20)))
    except (psycopg.Error, OSError):
        return ()
    finally:
        os.close(file)


def _poll(connection: PGconn, deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        while (status := connection.connect_poll()) in (PollingStatus.READING, PollingStatus.WRITING):
            event = selectors.EVENT_READ if status == PollingStatus.READING else selectors.EVENT_WRITE
            selector.register(connection.socket, event)
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            # libpq may go on with another socket.
            selector.unregister(connection.socket)
            if not ready:
                return
