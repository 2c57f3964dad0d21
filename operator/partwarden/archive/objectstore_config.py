"""Opens an object store: by a policy's destination and its Secret, or by a URL and the usual variables.

Without credentials the library reads those that workload identity of the platform provides: variables that a service
account's webhook sets, files with tokens, the metadata service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore import exceptions
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from ..api.destination import GCS, S3, Azure, Destination
from ..errors import InvalidSpec, SecretInvalid, SecretKeyMissing
from .objectstore import Objects

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "az")
REGION = "us-east-1"
CONNECT, WHOLE = timedelta(seconds=10), timedelta(minutes=10)
"""How long is waited for a connection, and for one request in all: a part may be large, and the way slow."""
RETRIES: RetryConfig = {
    "max_retries": 6,
    "retry_timeout": timedelta(minutes=2),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 2},
}
"""Of one request. What lasts longer fails the archive, and is tried again as a whole."""

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Secret:
    name: str
    values: Values

    def find(self, *keys: str) -> str:
        """The first of these keys that has a value, without the newline that such files end with; else nothing."""
        return next((self.values[key].strip() for key in keys if self.values.get(key, "").strip()), "")

    def value(self, *keys: str) -> str:
        """The same. Raises `SecretKeyMissing` where none has."""
        if found := self.find(*keys):
            return found
        raise SecretKeyMissing(f"Secret {self.name} of the destination has no {' or '.join(keys)}: add it")


def by_destination(destination: Destination, values: Values) -> Objects:
    """The store of a policy's destination, which is none of a claim. ``values``: its Secret's, by the keys.

    Raises `SecretKeyMissing` where the Secret that is named lacks what is needed, `SecretInvalid` where a value in it
    cannot be used, `InvalidSpec`.
    """
    place = destination.s3 or destination.gcs or destination.azure
    assert place is not None
    secret = _Secret(destination.secret_name, values) if destination.secret_name else None
    bucket, prefix = _split(place.url)
    client = _client(place.endpoint or "", secret.find("ca.crt") if secret else None)

    def make() -> ObjectStore:
        if isinstance(place, S3):
            return _s3(place, bucket, secret, client)
        if isinstance(place, GCS):
            return _gcs(place, bucket, secret, client)
        return _azure(place, bucket, secret, client)

    what = f"Secret {secret.name}" if secret else str(destination)
    return Objects(_made(make, SecretInvalid if secret else InvalidSpec, what), prefix, str(destination))


def by_url(url: str, environment: Values) -> tuple[Objects, str]:
    """The bucket of an address like ``s3://bucket/prefix``, and the prefix. Raises `InvalidSpec`.

    Endpoint, region and credentials are taken from the variables that the tools of these services read, too.
    """
    scheme = url.split("://", 1)[0]
    bucket, prefix = _split(url)
    if scheme not in SCHEMES or not bucket:
        raise InvalidSpec(f"{url!r} is no address: give a folder, s3://, gs:// or az:// with a bucket")
    authority = environment.get("AWS_CA_BUNDLE") if scheme == "s3" else None
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""

    def make() -> ObjectStore:
        pem = Path(authority).read_text() if authority else None
        if scheme == "gs":
            return GCSStore(bucket, client_options=_client("", None), retry_config=RETRIES)
        if scheme == "az":
            return AzureStore(bucket, client_options=_client("", None), retry_config=RETRIES)
        named: dict[str, Any] = {"endpoint": endpoint.rstrip("/")} if endpoint else {}
        return S3Store(bucket, client_options=_client(endpoint, pem), retry_config=RETRIES, **named)

    return Objects(_made(make, InvalidSpec, url), "", f"{scheme}://{bucket}"), prefix


def _split(url: str) -> tuple[str, str]:
    """Bucket and prefix. Nothing is unquoted: names of archives hold percent signs of their own."""
    bucket, _, prefix = url.split("://", 1)[-1].partition("/")
    return bucket, prefix.strip("/")


def _made(make: Callable[[], ObjectStore], kind: type[InvalidSpec] | type[SecretInvalid], what: str) -> ObjectStore:
    try:
        return make()
    except (exceptions.BaseError, ValueError, OSError) as error:
        # What the library says of a value does not repeat it.
        raise kind(f"{what} cannot be used: {str(error).splitlines()[0]}") from None


def _client(endpoint: str, authority: str | None) -> ClientConfig:
    options: ClientConfig = {"connect_timeout": CONNECT, "timeout": WHOLE}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    if authority:
        options["root_certificate"] = authority
    return options


def _s3(place: S3, bucket: str, secret: _Secret | None, client: ClientConfig) -> ObjectStore:
    options: dict[str, Any] = {"region": place.region or REGION, "virtual_hosted_style_request": not place.path_style}
    if place.endpoint:
        options["endpoint"] = place.endpoint.rstrip("/")
        if not place.path_style:
            options["endpoint"] = _with_bucket(options["endpoint"], bucket)
    if secret is not None:
        for option, keys in (
            ("access_key_id", ("accessKeyId", "AWS_ACCESS_KEY_ID")),
            ("secret_access_key", ("secretAccessKey", "AWS_SECRET_ACCESS_KEY")),
        ):
            options[option] = secret.value(*keys)
        if token := secret.find("sessionToken", "AWS_SESSION_TOKEN"):
            options["session_token"] = token
    return S3Store(bucket, client_options=client, retry_config=RETRIES, **options)


def _gcs(place: GCS, bucket: str, secret: _Secret | None, client: ClientConfig) -> ObjectStore:
    options: dict[str, Any] = {"base_url": place.endpoint.rstrip("/")} if place.endpoint else {}
    if secret is not None:
        options["service_account_key"] = secret.value("credentials.json")
    return GCSStore(bucket, client_options=client, retry_config=RETRIES, **options)


def _azure(place: Azure, container: str, secret: _Secret | None, client: ClientConfig) -> ObjectStore:
    options: dict[str, Any] = {"account_name": place.account}
    if place.endpoint:
        options["endpoint"] = place.endpoint.rstrip("/")
    if secret is not None:
        if signature := secret.find("sasToken"):
            options["sas_key"] = signature
        else:
            options["account_key"] = secret.value("accountKey", "sasToken")
    return AzureStore(container, client_options=client, retry_config=RETRIES, **options)


def _with_bucket(endpoint: str, bucket: str) -> str:
    """As the library wants it where the bucket stands in the host's name."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{bucket}.{parts.netloc}"
