"""Where archives lie: the `Store` that all places are, and how a place is opened.

An object store is opened by a policy's destination and its Secret, or by a URL and the usual variables. Without
credentials the library reads those that workload identity of the platform provides: variables that a service account's
webhook sets, files with tokens, the metadata service.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from .. import errors
from ..api.destination import S3, Azure, Destination
from .folder import Folder
from .job_order import MOUNT, STORAGE_KEYS, STORAGE_PREFIX, JobOrder
from .objectstore import FAILED, Objects
from .uploads import Uploads

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig


class Store(Protocol):
    """A place. Keys are paths with ``/``, below its root. All raise leaves of `errors` that begin with Destination."""

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        """Write a new object, whole and durable, or none: what ``chunks`` raise leaves none. Raises `ObjectExists`.
        ``expected``: about how many bytes it will have."""

    def get(self, key: str) -> Iterator[bytes]:
        """Its bytes, piece by piece. Raises `ArchiveDamaged` where there is none."""

    def below(self, key: str, name: str) -> Iterator[str]:
        """The keys of all objects of that name in ``key`` and below, in any order."""

    def remove(self, key: str) -> bool:
        """Delete an object, where there is one. Returns whether the place is known to keep a version of it. Raises
        `DeletionRefused` where it keeps the object."""

    def url(self, key: str) -> str:
        """For people, and for reports."""


CLAIM, FILE = "pvc://", "file://"
ADDRESSES = "give a folder, s3://, gs:// or az:// with a bucket"
POD = (
    '{"spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, '
    '"volumes": [{"name": "archives", "persistentVolumeClaim": {"claimName": %s}}], "containers": [{"name": "restore", '
    '"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}, '
    '"volumeMounts": [{"name": "archives", "mountPath": %s}]}]}}'
)
"""As namespaces want it that take restricted pods only."""


def how_to_read(url: str) -> str:
    """What to type to read an archive at a location like ``pvc://claim/folder``, which only a pod sees."""
    claim, _, folder = url.removeprefix(CLAIM).partition("/")
    path = f"{MOUNT}/{folder}".rstrip("/")
    words = [
        *("kubectl", "run", "restore", "--image=IMAGE", "--restart=Never", "--rm", "--attach", "--quiet"),
        *("--override-type=strategic", f"--overrides={POD % (json.dumps(claim), json.dumps(MOUNT))}", "--"),
        *("restore", f"--manifest={path}", "--list"),
    ]
    return (
        f"{url} lies on PersistentVolumeClaim {claim!r}, which a pod in its namespace can read. With the operator's "
        f"image for IMAGE, and with --namespace where it is another:\n\n  {shlex.join(words)}\n\nThere it is {path}, "
        "for verify as well. With --dsn a pod needs a password, too: examples/restore.yaml is its manifest"
    )


def of_job(spec: JobOrder, environment: MutableMapping[str, str]) -> Store:
    """The store of a Job's destination. Takes the Secret's values out of the environment: programs that are started
    have no need to see them. Raises `DestinationDenied`, and as `by_destination`."""
    names = {key: STORAGE_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", key) for key in STORAGE_KEYS}
    values = {key: environment.pop(name) for key, name in names.items() if name in environment}
    claim, root = spec.destination.pvc, Path(spec.mount)
    if claim is None:
        return by_destination(spec.destination, values)
    if claim.path:
        if ".." in claim.path.split("/"):
            raise errors.InvalidSpec(f"path {claim.path!r} of the volume leads out of it")
        root /= claim.path.strip("/")
        if Path(spec.mount).is_dir():
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise errors.DestinationDenied(f"folder {root} of {spec.destination}: {error.strerror}") from None
    return Folder(root, str(spec.destination))


def at(url: str, environment: Mapping[str, str] = os.environ) -> tuple[Store, str]:
    """The store at that address, and the key in it: of a folder its parent, of a bucket all of it. Endpoint, region and
    credentials of an object store are taken from the variables that the tools of these services read, too. Raises
    `InvalidSpec`."""
    # Nothing is unquoted: names of archives hold percent signs of their own.
    path = url.removeprefix(FILE)
    if path.startswith(CLAIM):
        raise errors.InvalidSpec(how_to_read(path))
    if "://" not in path and Path(path).name:
        return Folder(Path(path).parent), Path(path).name
    scheme, bucket, prefix = _split(path)
    if scheme not in STORES or not bucket:
        raise errors.InvalidSpec(f"{url!r} is no address: {ADDRESSES}")
    endpoint, authority = "", None
    if scheme == "s3":
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        authority = Path(bundle) if (bundle := environment.get("AWS_CA_BUNDLE")) else None
    store = _open(scheme, bucket, endpoint.rstrip("/"), authority, {}, errors.InvalidSpec, url)
    return Objects(store, "", f"{scheme}://{bucket}"), prefix


def to(url: str, environment: Mapping[str, str] = os.environ) -> Store:
    """The store that archives are written to below that address. Raises as `at`."""
    path = url.removeprefix(FILE)
    if not path.strip():
        raise errors.InvalidSpec(f"{url!r} is no address: {ADDRESSES}")
    if "://" not in path:
        return Folder(Path(path))
    store, prefix = at(url, environment)
    return store.within(prefix) if isinstance(store, Objects) else store


REGION = "us-east-1"
CONNECT, WHOLE = timedelta(seconds=10), timedelta(minutes=10)
"""How long is waited for a connection, and for one request in all: a part may be large, and the way slow."""
RETRIES: RetryConfig = {
    "max_retries": 6,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 2},
}
"""Of one request. What lasts longer fails the archive, and is tried again as a whole."""
STORES: Mapping[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
ENDPOINT = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
CREDENTIALS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "s3": {
        "access_key_id": ("accessKeyId", "AWS_ACCESS_KEY_ID"),
        "secret_access_key": ("secretAccessKey", "AWS_SECRET_ACCESS_KEY"),
    },
    "gs": {"service_account_key": ("credentials.json",)},
    "az": {"account_key": ("accountKey", "sasToken")},
}
"""By scheme: options of the store, and the keys of the Secret, of which the first that has a value is taken."""


def by_destination(destination: Destination, values: Mapping[str, str]) -> Objects:
    """The store of a policy's destination, which is none of a claim. ``values``: its Secret's, by the keys. Raises
    `SecretKeyMissing` where the Secret that is named lacks what is needed, `SecretInvalid` where a value in it cannot
    be used, `InvalidSpec`."""
    place = destination.s3 or destination.gcs or destination.azure
    assert place is not None
    scheme, bucket, prefix = _split(place.url)
    options: dict[str, Any] = {}
    endpoint = place.endpoint and place.endpoint.rstrip("/")
    if isinstance(place, S3):
        options = {"region": place.region or REGION, "virtual_hosted_style_request": not place.path_style}
        if endpoint and not place.path_style:
            # As the library wants it where the bucket stands in the host's name.
            parts = urlsplit(endpoint)
            endpoint = f"{parts.scheme}://{bucket}.{parts.netloc}"
    elif isinstance(place, Azure):
        options = {"account_name": place.account}
    secret, authority, what = destination.secret_name, None, str(destination)
    if secret:
        # Without the newlines that such files end with.
        stripped = {key: value.strip() for key, value in values.items()}
        options |= _credentials(scheme, secret, stripped)
        authority, what = stripped.get("ca.crt"), f"Secret {secret}"
    refused = errors.SecretInvalid if secret else errors.InvalidSpec
    found = Objects(_open(scheme, bucket, endpoint, authority, options, refused, what), prefix, str(destination))
    if isinstance(place, S3) and secret:
        found.uploads = Uploads.of(place, endpoint, options, authority)
    return found


def _split(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix. Nothing is unquoted: names of archives hold percent signs of their own."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    return scheme, bucket, prefix.strip("/")


def _credentials(scheme: str, secret: str, values: Mapping[str, str]) -> dict[str, str]:
    """Raises `SecretKeyMissing`."""
    if scheme == "az" and values.get("sasToken"):
        return {"sas_key": values["sasToken"]}
    options = {}
    for option, keys in CREDENTIALS[scheme].items():
        found = next((values[key] for key in keys if values.get(key)), None)
        if found is None:
            raise errors.SecretKeyMissing(f"Secret {secret} of the destination has no {' or '.join(keys)}: add it")
        options[option] = found
    token = values.get("sessionToken") or values.get("AWS_SESSION_TOKEN")
    return {**options, "session_token": token} if scheme == "s3" and token else options


def _open(
    scheme: str,
    bucket: str,
    endpoint: str | None,
    authority: str | Path | None,
    options: Mapping[str, Any],
    refused: type[errors.InvalidSpec | errors.SecretInvalid],
    what: str,
) -> ObjectStore:
    """``authority``: the certificate of the CA that signed the server's, or its file. Raises ``refused``."""
    client: ClientConfig = {"connect_timeout": CONNECT, "timeout": WHOLE}
    named = {ENDPOINT[scheme]: endpoint} if endpoint else {}
    if endpoint and endpoint.startswith("http://"):
        client["allow_http"] = True
    try:
        if authority:
            client["root_certificate"] = authority.read_text() if isinstance(authority, Path) else authority
        return STORES[scheme](bucket, client_options=client, retry_config=RETRIES, **options, **named)
    except FAILED as error:
        # What the library says of a value does not repeat it.
        raise refused(f"{what} cannot be used: {str(error).splitlines()[0]}") from None
