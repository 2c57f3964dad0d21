"""How a policy's destination and its Secret configure an object store, and what is made of what services answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store
from pydantic import ValidationError

from partwarden.api.destination import Destination
from partwarden.archive import verify
from partwarden.archive.folder import Folder
from partwarden.archive.objectstore import PART, PARTS, Objects, is_missing, is_without_conditions, part_size, translate
from partwarden.archive.storage import at, by_destination
from partwarden.errors import ArchiveDamaged, DestinationNotFound, InvalidSpec, SecretInvalid, SecretKeyMissing

S3 = {"url": "s3://archives/prod/", "secretRef": {"name": "storage"}}
AWS = {"accessKeyId": "id\n", "secretAccessKey": "key\n"}


def store(values: dict[str, str], **place: Any) -> Any:
    return by_destination(Destination.model_validate(place), values).store


def test_s3_is_amazons_in_path_style_by_default() -> None:
    made = store(AWS, s3=S3)
    assert isinstance(made, S3Store)
    assert made.config["bucket"] == "archives"
    assert (made.config["region"], made.config.get("endpoint")) == ("us-east-1", None)
    assert (made.config["access_key_id"], made.config["secret_access_key"]) == ("id", "key")


def test_the_bucket_stands_in_the_hosts_name_where_that_is_wanted() -> None:
    made = store(AWS, s3={**S3, "endpoint": "https://minio.storage:9000/", "pathStyle": False, "region": "eu-1"})
    assert made.config["endpoint"] == "https://archives.minio.storage:9000"
    assert made.config["region"] == "eu-1"
    assert "allow_http" not in (made.client_options or {})
    made = store(AWS, s3={**S3, "endpoint": "http://minio:9000"})
    assert made.config["endpoint"] == "http://minio:9000"
    assert (made.client_options or {})["allow_http"]


def test_a_token_goes_to_no_server_that_a_policy_names() -> None:
    for kind, url in (("gcs", "gs://archives"), ("azure", "az://archives")):
        place = {"url": url, "endpoint": "https://elsewhere", **({"account": "example"} if kind == "azure" else {})}
        with pytest.raises(ValidationError, match="endpoint needs secretRef"):
            Destination.model_validate({kind: place})
        Destination.model_validate({kind: {**place, "secretRef": {"name": "storage"}}})


def test_the_names_of_the_variables_are_keys_as_well() -> None:
    values = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_SESSION_TOKEN": "token"}
    assert store(values, s3=S3).config["session_token"] == "token"


def test_azure_takes_a_key_or_a_signature() -> None:
    place = {"url": "az://archives/prod", "account": "example", "secretRef": {"name": "storage"}}
    made = store({"accountKey": "a2V5"}, azure=place)
    assert isinstance(made, AzureStore)
    assert (made.config["account_name"], made.config["container_name"]) == ("example", "archives")
    assert store({"sasToken": "?sv=1&sig=x"}, azure=place).config["sas_key"]


def test_google_takes_the_key_of_a_service_account() -> None:
    place = {"url": "gs://archives/prod", "secretRef": {"name": "storage"}}
    account = {"private_key": "k", "private_key_id": "i", "client_email": "e", "disable_oauth": True}
    with pytest.raises(SecretInvalid, match="Secret storage cannot be used: "):
        store({"credentials.json": json.dumps({**account, "private_key": 5})}, gcs=place)
    assert isinstance(store({"credentials.json": json.dumps(account)}, gcs=place), GCSStore)


@pytest.mark.parametrize(
    ("place", "values", "words"),
    [
        ({"s3": S3}, {}, "Secret storage of the destination has no accessKeyId or AWS_ACCESS_KEY_ID: add it"),
        ({"s3": S3}, {"accessKeyId": "x"}, "no secretAccessKey or"),
        ({"gcs": {"url": "gs://archives", "secretRef": {"name": "storage"}}}, AWS, "no credentials.json: add it"),
        (
            {"azure": {"url": "az://archives", "account": "example", "secretRef": {"name": "storage"}}},
            AWS,
            "no accountKey or sasToken: add it",
        ),
    ],
)
def test_a_key_that_the_secret_lacks_is_named(place: dict[str, Any], values: dict[str, str], words: str) -> None:
    with pytest.raises(SecretKeyMissing, match=words):
        store(values, **place)


def test_the_error_about_a_value_does_not_repeat_it() -> None:
    place = {"url": "az://archives", "account": "example", "secretRef": {"name": "storage"}}
    with pytest.raises(SecretInvalid, match="Secret storage cannot be used") as caught:
        store({"accountKey": "hush hush"}, azure=place)
    assert "hush" not in str(caught.value)


def test_an_address_has_a_bucket_and_one_of_three_schemes() -> None:
    made, prefix = at("s3://archives/prod/", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000"})
    assert (made.url(prefix), prefix) == ("s3://archives/prod", "prod")
    made, _ = at("s3://archives", {"AWS_ENDPOINT_URL_S3": "https://minio:9000/"})
    assert isinstance(made, Objects)
    assert isinstance(made.store, S3Store)
    assert made.store.config["endpoint"] == "https://minio:9000"
    for wrong in ("ftp://archives", "s3://", "s3:///prod"):
        with pytest.raises(InvalidSpec, match="give a folder, s3://, gs:// or az:// with a bucket"):
            at(wrong, {})


def answer(status: int, code: str, message: str = "The words of the service.") -> str:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message><Signed>secret</Signed></Error>"
    return f"Error performing PUT http://s/b/k in 1ms - Server returned non-2xx status code: {status} Words: {body}"


@pytest.mark.parametrize(
    ("kind", "status", "code", "reason"),
    [
        (FileNotFoundError, 404, "NoSuchKey", "ArchiveDamaged"),
        (FileNotFoundError, 404, "BlobNotFound", "ArchiveDamaged"),
        (FileNotFoundError, 404, "NoSuchBucket", "DestinationNotFound"),
        (FileNotFoundError, 404, "ContainerNotFound", "DestinationNotFound"),
        (exceptions.PermissionDeniedError, 403, "AccessDenied", "DestinationDenied"),
        (exceptions.PermissionDeniedError, 403, "SignatureDoesNotMatch", "DestinationDenied"),
        (exceptions.PermissionDeniedError, 403, "ExpiredToken", "DestinationDenied"),
        (exceptions.PermissionDeniedError, 403, "QuotaExceeded", "DestinationFull"),
        (exceptions.UnauthenticatedError, 401, "InvalidAuthenticationInfo", "DestinationDenied"),
        (exceptions.GenericError, 400, "AuthorizationHeaderMalformed", "DestinationDenied"),
        (exceptions.GenericError, 301, "PermanentRedirect", "DestinationDenied"),
        (exceptions.GenericError, 507, "XMinioStorageFull", "DestinationFull"),
        (exceptions.GenericError, 507, "Other", "DestinationFull"),
        (FileNotFoundError, 404, "NoSuchUpload", "DestinationUnreachable"),
        (exceptions.GenericError, 503, "SlowDown", "DestinationUnreachable"),
        (exceptions.GenericError, 429, "TooManyRequests", "DestinationUnreachable"),
        (exceptions.GenericError, 500, "InternalError", "DestinationUnreachable"),
        (exceptions.AlreadyExistsError, 412, "PreconditionFailed", "ObjectExists"),
        (exceptions.UnauthenticatedError, 401, "AuthenticationRequired", "DestinationDenied"),
        (exceptions.PermissionDeniedError, 403, "AuthorizationPermissionMismatch", "DestinationDenied"),
        (exceptions.GenericError, 503, "ServerBusy", "DestinationUnreachable"),
    ],
)
def test_what_a_service_answers_is_one_of_our_errors(
    kind: type[Exception], status: int, code: str, reason: str
) -> None:
    error = translate(kind(answer(status, code)), "s3://archives/prod/key")
    assert error.reason == reason
    assert "s3://archives/prod/key" in str(error)
    assert "secret" not in str(error)


def test_what_a_service_says_in_json_or_on_several_lines_is_repeated_in_one() -> None:
    said = "Error performing GET http://s/b/k in 1ms - Server returned non-2xx status code: 403 Forbidden: "
    body = {"code": 403, "message": "No access.", "errors": [{"reason": "forbidden", "message": "No access."}]}
    error = translate(exceptions.PermissionDeniedError(said + json.dumps({"error": body})), "gs://archives/key")
    assert str(error).startswith("gs://archives/key: forbidden: No access: check the credentials")
    token = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    error = translate(exceptions.GenericError(said.replace("403", "400") + token), "gs://archives/key")
    assert (error.reason, "invalid_grant: Invalid JWT Signature" in str(error)) == ("DestinationDenied", True)
    lines = answer(503, "ServerBusy", "The server is busy.\nRequestId:1\nTime:2026-01-01")
    assert str(translate(exceptions.GenericError(lines), "az://a/k")) == "az://a/k: ServerBusy: The server is busy"


def test_nothing_found_where_no_object_is_read_is_a_missing_bucket() -> None:
    nothing = FileNotFoundError("Server returned non-2xx status code: 404 Not Found: ")
    assert translate(nothing, "s3://archives/key").reason == "ArchiveDamaged"
    assert translate(nothing, "s3://archives/key", reading=False).reason == "DestinationNotFound"


def test_a_prefix_that_no_object_can_have_is_reported_at_once() -> None:
    place = {"url": "s3://archives/a/../b", "endpoint": "http://127.0.0.1:9", "secretRef": {"name": "storage"}}
    with pytest.raises(DestinationNotFound, match=r"is no address of an object: .*\.\."):
        by_destination(Destination.model_validate({"s3": place}), AWS).put("key", [b""])


def test_a_missing_object_is_not_a_missing_bucket() -> None:
    assert is_missing(FileNotFoundError(answer(404, "NoSuchKey")))
    assert not is_missing(FileNotFoundError(answer(404, "NoSuchBucket")))
    assert not is_missing(FileNotFoundError(answer(404, "XAdminUserNotFound")))
    assert is_without_conditions(exceptions.GenericError(answer(501, "NotImplemented")))


def test_an_object_has_not_too_many_parts() -> None:
    assert part_size(0) == part_size(PART * PARTS // 2) == PART
    for size in (1 << 40, 5 << 40):
        assert size * 3 / 2 / part_size(size) <= PARTS


@pytest.mark.parametrize("place", ["../other/a", "a/../../b", "a/./b", ".."])
def test_a_location_that_leads_out_of_its_destination_is_no_archive(tmp_path: Path, place: str) -> None:
    """As in a status that others have written."""
    store = Folder(tmp_path)
    with pytest.raises(ArchiveDamaged, match="no archive lies there"):
        verify.place_of(store, store.url(place))
    assert verify.place_of(store, store.url("a%2E/..b/c..")) == "a%2E/..b/c.."


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ({}, "https://s3.us-east-1.amazonaws.com/archives"),
        ({"region": "eu-1", "pathStyle": False}, "https://archives.s3.eu-1.amazonaws.com"),
        ({"endpoint": "https://minio:9000/"}, "https://minio:9000/archives"),
        ({"endpoint": "https://minio:9000", "pathStyle": False}, "https://archives.minio:9000"),
    ],
)
def test_uploads_are_listed_where_the_library_writes(place: dict[str, Any], root: str) -> None:
    made = by_destination(Destination.model_validate({"s3": {**S3, **place}}), {**AWS, "sessionToken": "token\n"})
    assert made.uploads
    assert (made.uploads.root, made.uploads.prefix, made.uploads.token) == (root, "prod", "token")
    assert not any(each in repr(made.uploads) for each in ("key'", "token'"))
