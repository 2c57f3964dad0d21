"""What an object store answered -> one of our errors. Pure.

The library tells kinds apart by the status of the answer alone; what the service itself calls the cause stands in the
body of its answer. Of that only the code and the message are told: the rest of it repeats what was signed.
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

import re

from obstore import exceptions

from .errors import (
    ArchiveDamaged,
    DestinationDenied,
    DestinationFull,
    DestinationNotFound,
    DestinationUnreachable,
    ObjectExists,
    PartwardenError,
)

NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted")
NO_OBJECT = ("", "NoSuchKey", "BlobNotFound")
LOST = "NoSuchUpload"
"""Somebody has removed what was uploaded so far: the next attempt begins anew."""
FULL = re.compile(r"Full$|Quota|InsufficientStorage|NoSpace", re.IGNORECASE)
WRONG_LOGIN = re.compile(
    r"AccessKeyId|SignatureDoesNotMatch|Authentication|InvalidToken|ExpiredToken|UserNotFound|InvalidSecurity"
)
BUSY = (408, 429)
NO_ROOM = 507
FORBIDDEN = (401, 403)


def is_missing(error: Exception) -> bool:
    """Whether the bucket answered that it has no such object."""
    return isinstance(error, FileNotFoundError) and _code(str(error)) in NO_OBJECT


def is_without_conditions(error: Exception) -> bool:
    """Whether the service knows no "only where there is none yet", which is a later part of the protocol."""
    return _code(str(error)) == "NotImplemented" or isinstance(error, exceptions.NotSupportedError)


def translate(error: Exception, url: str) -> PartwardenError:
    """What of ``url`` could not be done, why, and what to do."""
    text = str(error)
    code, status, said = _code(text), _status(text), _said(text)
    if isinstance(error, exceptions.AlreadyExistsError):
        return ObjectExists(f"{url} exists already, and is never overwritten")
    if code in NO_BUCKET:
        return DestinationNotFound(f"{url}: the bucket is not there: {said}; make it, or correct its name")
    if WRONG_LOGIN.search(code):
        return DestinationDenied(f"{url}: the credentials were refused: {said}; correct them")
    if FULL.search(code) or status == NO_ROOM:
        return DestinationFull(f"{url}: {said}: make room, or raise the quota")
    if is_missing(error):
        return ArchiveDamaged(f"{url} is not there")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or status in FORBIDDEN:
        return DestinationDenied(
            f"{url}: {said}: check the credentials, and let them read, write and list below that address"
        )
    if isinstance(error, exceptions.InvalidPathError):
        return DestinationNotFound(f"{url} is no address of an object: {text.splitlines()[0]}")
    if 300 <= status < 500 and status not in BUSY and code != LOST:
        return DestinationDenied(f"{url}: the service refuses that: {said}; check region, endpoint and pathStyle")
    if "InvalidCertificate" in text:
        return DestinationUnreachable(
            f"{url}: the server's certificate is not trusted ({_within(text, 'InvalidCertificate')}): give the CA that "
            "signed it as ca.crt"
        )
    return DestinationUnreachable(f"{url}: {said}")


def _code(text: str) -> str:
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else ""


def _status(text: str) -> int:
    found = re.search(r"status code: (\d{3})", text)
    return int(found[1]) if found else 0


def _said(text: str) -> str:
    """In the service's words, else in those of the system, else in the library's."""
    message = re.search(r"<Message>([^<]*)", text)
    if message:
        return f"{_code(text)}: {message[1].strip().rstrip('.')}"
    system = re.search(r'Os \{[^}]*message: "([^"]*)"', text)
    if system:
        return system[1]
    if "dns error" in text:
        return "the name of the host is not known"
    if "TimedOut" in text or "operation timed out" in text:
        return "no answer in time"
    if "IncompleteMessage" in text or "connection closed" in text:
        return "the connection was closed without an answer"
    status = re.search(r"status code: (\d{3} [\w ]+)", text)
    if status:
        return status[1].strip()
    return text.splitlines()[0].split(" - ")[-1].strip()


def _within(text: str, word: str) -> str:
    """The innermost name of what the library says of it."""
    names = re.findall(r"\w+", text.split(word, 1)[1].split("}", 1)[0])
    return next((each for each in reversed(names) if each not in ("Other", "OtherError")), word)
