"""Where archives go: ``spec.retention.archive`` of a PartitionPolicy, ``spec.destination`` of a PartitionArchive."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from .types import HINTS, Model, ObjectName, Rule, Ruled, SecretRef

PREFIX = r"^[^/\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"
S3_URL = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x20\x7f?#]*)?$"
GCS_URL = r"^gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[^\x00-\x20\x7f?#]*)?$"
AZURE_URL = r"^az://[a-z0-9][a-z0-9-]{1,61}[a-z0-9](/[^\x00-\x20\x7f?#]*)?$"
ENDPOINT = r"^https?://[^\x00-\x20\x7f/?#]+/?$"
ACCOUNT = r"^[a-z0-9]{3,24}$"
REGION = r"^[A-Za-z0-9-]+$"
HINTS |= {
    PREFIX: "must be a path below the volume's root, without a leading slash or control characters",
    S3_URL: "must be like s3://bucket or s3://bucket/prefix",
    GCS_URL: "must be like gs://bucket or gs://bucket/prefix",
    AZURE_URL: "must be like az://container or az://container/prefix",
    ENDPOINT: "must be like https://minio.storage:9000, without a path",
    REGION: "must be the name of a region, such as eu-central-1",
    ACCOUNT: "must be the name of a storage account: 3 to 24 lower case letters and digits",
}

Endpoint = Annotated[str, StringConstraints(max_length=512, pattern=ENDPOINT)]
ONE_DESTINATION = Rule(
    "[has(self.pvc), has(self.s3), has(self.gcs), has(self.azure)].filter(x, x).size() == 1",
    "needs exactly one of pvc, s3, gcs and azure",
    lambda spec: sum(each is not None for each in (spec.pvc, spec.s3, spec.gcs, spec.azure)) == 1,
)
OWN_SERVER = Rule(
    "!has(self.endpoint) || has(self.secretRef)",
    "endpoint needs secretRef: the workload's identity is sent to no other server",
    lambda place: place.endpoint is None or place.secret_ref is not None,
    "endpoint",
)
"""A token serves any holder: the author of a policy must not make the Job send its own elsewhere."""


class PVC(Model):
    """A PersistentVolumeClaim in the policy's own namespace."""

    claim_name: ObjectName = Field(description="Name of a PersistentVolumeClaim.")
    path: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        pattern=PREFIX,
        description="Folder below the volume's root. Absent: the root.",
    )


class S3(Model):
    """Amazon S3, and what speaks its protocol."""

    url: str = Field(max_length=1024, pattern=S3_URL, description="Bucket and prefix, such as s3://bucket/prefix.")
    endpoint: Endpoint | None = Field(
        None, description="URL of another server that speaks S3, such as https://minio.storage:9000. Absent: Amazon's."
    )
    region: str | None = Field(None, max_length=64, pattern=REGION, description="Absent: us-east-1.")
    path_style: bool = Field(
        True, description="Whether the bucket stands in the path, not in the host name. Default: true."
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with accessKeyId and secretAccessKey (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), "
        "sessionToken, and ca.crt for a server of your own. Absent: workload identity.",
    )


class _ByToken(Ruled):
    """A place where workload identity is a token, not a signature."""

    RULES = (OWN_SERVER,)

    endpoint: Endpoint | None = Field(None, description="URL of another server; needs secretRef.")
    secret_ref: SecretRef | None = None


class GCS(_ByToken):
    """Google Cloud Storage."""

    url: str = Field(max_length=1024, pattern=GCS_URL, description="Bucket and prefix, such as gs://bucket/prefix.")
    secret_ref: SecretRef | None = Field(
        None, description="Secret with credentials.json, a service account's key. Absent: workload identity."
    )


class Azure(_ByToken):
    """Azure Blob Storage."""

    url: str = Field(
        max_length=1024, pattern=AZURE_URL, description="Container and prefix, such as az://container/prefix."
    )
    account: str = Field(pattern=ACCOUNT, description="Name of the storage account.")
    secret_ref: SecretRef | None = Field(
        None, description="Secret with accountKey or sasToken. Absent: workload identity."
    )


class Destination(Ruled):
    """Exactly one place."""

    RULES: ClassVar[tuple[Rule, ...]] = (ONE_DESTINATION,)

    pvc: PVC | None = Field(None, description="A PersistentVolumeClaim.")
    s3: S3 | None = Field(None, description="Amazon S3, and what speaks its protocol.")
    gcs: GCS | None = Field(None, description="Google Cloud Storage.")
    azure: Azure | None = Field(None, description="Azure Blob Storage.")

    @property
    def secret_name(self) -> str | None:
        """The Secret that its credentials are in."""
        place = self.s3 or self.gcs or self.azure
        return place.secret_ref.name if place and place.secret_ref else None

    def __str__(self) -> str:
        if self.pvc is not None:
            return f"pvc://{self.pvc.claim_name}" + (f"/{self.pvc.path.strip('/')}" if self.pvc.path else "")
        place = self.s3 or self.gcs or self.azure
        assert place is not None
        return place.url.rstrip("/")
