"""Where archives lie -> the store that writes and reads there: for a Job as its order says, by hand by a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from . import remote
from .claim_pod import CLAIM, how_to_read
from .errors import DestinationDenied, InvalidSpec
from .folders import Folder
from .objects import Objects
from .order import STORAGE_KEYS, STORAGE_PREFIX, Order
from .storing import Store

FILE = "file://"


def of_order(order: Order, environment: MutableMapping[str, str]) -> Store:
    """Takes the Secret's values out of the environment: programs that are started have no need to see them.

    Raises `DestinationDenied`, and as `remote.by_destination`.
    """
    names = {key: STORAGE_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", key) for key in STORAGE_KEYS}
    values = {key: environment.pop(name) for key, name in names.items() if name in environment}
    if order.destination.pvc is None:
        return remote.by_destination(order.destination, values)
    return Folder(_mounted(order), str(order.destination))


def _mounted(order: Order) -> Path:
    claim = order.destination.pvc
    assert claim is not None
    root = Path(order.mount)
    if claim.path:
        if ".." in claim.path.split("/"):
            raise InvalidSpec(f"path {claim.path!r} of the volume leads out of it")
        root /= claim.path.strip("/")
        if Path(order.mount).is_dir():
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DestinationDenied(f"folder {root} of {order.destination}: {error.strerror}") from None
    return root


def at(url: str, environment: Mapping[str, str] = os.environ) -> tuple[Store, str]:
    """The store at that address, and the key in it: of a folder its parent, of a bucket all of it.

    Raises `InvalidSpec`, as `remote.by_url` does.
    """
    # Nothing is unquoted: names of archives hold percent signs of their own.
    path = url.removeprefix(FILE)
    if path.startswith(CLAIM):
        raise InvalidSpec(how_to_read(path))
    if "://" in path:
        return remote.by_url(path, environment)
    if not Path(path).name:
        raise InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    return Folder(Path(path).parent), Path(path).name


def to(url: str, environment: Mapping[str, str] = os.environ) -> Store:
    """The store that archives are written to below that address. Raises as `at`."""
    path = url.removeprefix(FILE)
    if not path.strip():
        raise InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    if "://" not in path:
        return Folder(Path(path))
    store, prefix = at(url, environment)
    return store.within(prefix) if isinstance(store, Objects) else store
