"""The destinations of archives, each on a real server, as policies name them and Secrets open them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from obstore.store import LocalStore, ObjectStore, S3Store

from lab.azure import AzureServer
from lab.front import Answer, Front, Request, Rule
from lab.gcs import GCSServer
from lab.gcs.server import new_key
from lab.s3 import S3Server
from partwarden.api.destination import S3, Destination
from partwarden.archive.folder import Folder
from partwarden.archive.objectstore import Objects
from partwarden.archive.storage import Store, by_destination
from support.shelf import Shelf

FOLDER, PLAIN, OLD, GCS, AZURE = "folder", "s3", "s3 without conditions", "gcs", "azure"
KINDS = (FOLDER, PLAIN, OLD, GCS, AZURE)
SERVICES = (PLAIN, GCS, AZURE)
PREFIX = "prod/db"
SECRET = {"secretRef": {"name": "storage"}}


@dataclass
class Place:
    """A place of one kind, empty. ``wrong``: Secrets that the service refuses; ``reading``: one that may only read."""

    kind: str
    raw: ObjectStore
    """May do everything there, whatever the way."""
    option: str
    given: dict[str, Any]
    secret: dict[str, str] = field(default_factory=dict)
    wrong: tuple[dict[str, str], ...] = ()
    reading: dict[str, str] | None = None
    port: int = 0
    """Of the server, or of the front that it is used by; 0 for a folder."""
    folder: Path | None = None

    def destination(self, port: int = 0, url: str = "") -> Destination:
        """Of a policy; by another port, or with another address."""
        given = self.given | ({"url": url} if url else {})
        if self.port:
            given["endpoint"] = f"http://127.0.0.1:{port or self.port}"
        return Destination.model_validate({self.option: given})

    def store(self, port: int = 0, url: str = "", secret: dict[str, str] | None = None) -> Store:
        """The store of that destination."""
        if self.folder:
            return Folder(self.folder / url.partition("://")[2])
        return by_destination(self.destination(port, url), self.secret if secret is None else secret)

    def shelf(self) -> Shelf:
        """The same, whose objects can be damaged."""
        return Shelf(self.store(), self.raw, "" if self.folder else PREFIX)

    def missing(self) -> str:
        """The address of a bucket that is not there."""
        scheme = str(self.given.get("url", "")).partition("://")[0]
        return f"{scheme or 'file'}://none-such"


def in_folder(folder: Path) -> Place:
    """A folder, as a volume is."""
    return Place(FOLDER, LocalStore(folder), "pvc", {"claimName": "archives"}, folder=folder)


def on_s3(s3: S3Server, bucket: str, front: Front | None = None) -> Place:
    """A bucket, without TLS; ``front`` leads there."""
    raw = S3Store(
        bucket,
        endpoint=s3.endpoint,
        region=s3.region,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        client_options={"allow_http": True},
    )
    right = secret(s3)
    return Place(
        OLD if front else PLAIN,
        raw,
        "s3",
        {"url": f"s3://{bucket}/{PREFIX}", **SECRET},
        right,
        tuple({**right, name: "wrong-wrong-wrong"} for name in ("accessKeyId", "secretAccessKey")),
        {"AWS_ACCESS_KEY_ID": s3.reader.access_key, "AWS_SECRET_ACCESS_KEY": s3.reader.secret_key},
        front.port if front else s3.port,
    )


def on_gcs(gcs: GCSServer, bucket: str) -> Place:
    """A bucket."""
    return Place(
        GCS,
        gcs.store(bucket),
        "gcs",
        {"url": f"gs://{bucket}/{PREFIX}", **SECRET},
        {"credentials.json": gcs.credentials()},
        ({"credentials.json": gcs.credentials(new_key())},),
        port=gcs.front.port,
    )


def on_azure(azure: AzureServer, container: str) -> Place:
    """A container."""
    return Place(
        AZURE,
        azure.store(container),
        "azure",
        {"url": f"az://{container}/{PREFIX}", "account": azure.account, **SECRET},
        {"accountKey": f"{azure.key}\n"},
        ({"accountKey": "d3Jvbmc="}, {"sasToken": azure.sas().replace("sig=", "sig=x")}),
        {"sasToken": azure.sas("rl")},
        azure.front.port,
    )


def refuse_conditions(request: Request) -> Answer | None:
    """As an S3 server does that knows no If-None-Match."""
    if "if-none-match" not in request.headers:
        return None
    message = "A header you provided implies functionality that is not implemented."
    return Answer(501, f"<Error><Code>NotImplemented</Code><Message>{message}</Message></Error>".encode())


def busy(times: int, method: str = "PUT") -> Rule:
    """A rule: the first requests of that method are answered as services do that have too much to do."""
    left = [times]

    def answer(request: Request) -> Answer | None:
        if request.method != method or not left[0]:
            return None
        left[0] -= 1
        return Answer(503, b"<Error><Code>ServerBusy</Code><Message>Please reduce your request rate.</Message></Error>")

    return answer


def fronted(place: Place, *rules: Rule) -> Front:
    """A new front before the place, with these rules."""
    front = Front("127.0.0.1", place.port)
    front.rules.extend(rules)
    return front


def destination(s3: S3Server, bucket: str, endpoint: str = "") -> Destination:
    """Of a policy, with credentials from a Secret called storage."""
    given = {"url": f"s3://{bucket}/{PREFIX}", "endpoint": endpoint or s3.endpoint, **SECRET}
    return Destination(s3=S3.model_validate(given))


def secret(s3: S3Server) -> dict[str, str]:
    """The data of such a Secret as users write it: with newlines at the ends."""
    authority = {"ca.crt": s3.ca.read_text()} if s3.ca else {}
    return {"accessKeyId": f"{s3.access_key}\n", "secretAccessKey": f"{s3.secret_key}\n", **authority}


def objects(s3: S3Server, bucket: str, endpoint: str = "") -> Objects:
    """The store of that destination."""
    return by_destination(destination(s3, bucket, endpoint), secret(s3))
