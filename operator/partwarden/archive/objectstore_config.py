"""Opens an object store: by a policy's destination and its Secret, or by a URL and the usual variables.

Without credentials the library reads those that workload identity of the platform provides: variables that a service
account's webhook sets, files with tokens, the metadata service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from ..api.destination import S3, Azure, Destination
from ..errors import InvalidSpec, SecretInvalid, SecretKeyMissing
from .objectstore import FAILED, Objects

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

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
    """The store of a policy's destination, which is none of a claim. ``values``: its Secret's, by the keys.

    Raises `SecretKeyMissing` where the Secret that is named lacks what is needed, `SecretInvalid` where a value in it
    cannot be used, `InvalidSpec`.
    """
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
    refused = SecretInvalid if secret else InvalidSpec
    return Objects(_open(scheme, bucket, endpoint, authority, options, refused, what), prefix, str(destination))


def by_url(url: str, environment: Mapping[str, str]) -> tuple[Objects, str]:
    """The bucket of an address like ``s3://bucket/prefix``, and the prefix. Raises `InvalidSpec`.

    Endpoint, region and credentials are taken from the variables that the tools of these services read, too.
    """
    scheme, bucket, prefix = _split(url)
    if scheme not in STORES or not bucket:
        raise InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    endpoint, authority = "", None
    if scheme == "s3":
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""
        authority = Path(bundle) if (bundle := environment.get("AWS_CA_BUNDLE")) else None
    store = _open(scheme, bucket, endpoint.rstrip("/"), authority, {}, InvalidSpec, url)
    return Objects(store, "", f"{scheme}://{bucket}"), prefix


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
            raise SecretKeyMissing(f"Secret {secret} of the destination has no {' or '.join(keys)}: add it")
        options[option] = found
    token = values.get("sessionToken") or values.get("AWS_SESSION_TOKEN")
    return {**options, "session_token": token} if scheme == "s3" and token else options


def _open(
    scheme: str,
    bucket: str,
    endpoint: str | None,
    authority: str | Path | None,
    options: Mapping[str, Any],
    refused: type[InvalidSpec | SecretInvalid],
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
