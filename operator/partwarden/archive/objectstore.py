"""An object store as the place where archives lie: S3 and what speaks its protocol, Google Cloud Storage, Azure Blob.

An object is there whole or not at all: large ones are uploaded in parts, which become an object by a last request.
Parts without that request are invisible, and cost until they are removed: see `uploads`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from itertools import chain
from typing import ParamSpec, TypeVar

import obstore
from obstore import exceptions
from obstore.store import AzureStore, ObjectStore, S3Store

from .. import errors
from .uploads import Uploads

# The library tells kinds of errors apart by the status of the answer alone; what the service itself calls the cause is
# in the body of its answer. Of that only the code and the message are repeated: the rest of it has what was signed.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "InvalidBucketName", "ContainerBeingDeleted")
NO_OBJECT = ("", "NoSuchKey", "BlobNotFound")
LOST = "NoSuchUpload"
"""What was uploaded so far was removed: the next attempt begins anew."""
FULL = re.compile(r"Full$|Quota|InsufficientStorage|NoSpace", re.IGNORECASE)
WRONG_LOGIN = re.compile(
    r"AccessKeyId|SignatureDoesNotMatch|Authentication|InvalidToken|ExpiredToken|UserNotFound|InvalidSecurity"
)
BUSY = (408, 429)
NO_ROOM = 507
FORBIDDEN = (401, 403)
KEEPING = (403, 409, 412)
"""What services answer that keep an object: S3 and Google Cloud Storage 403, Azure 409, or 412 for a lease."""
OF_ONE_KEY = r" request failed for key .*\(code: (\w+)\)"
"""What the library says where the answer to a deletion of several, which succeeded as a whole, says it of one."""
SUSPENDED = "null"
"""What S3 calls the version of an object that was written while the bucket kept none."""
LONGEST = 4096
"""Characters of such an answer that are searched: the key is the operator's own, the rest is what the server says."""
PASSING = ("", "InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted")
"""Of such codes those that pass; empty where it is no such answer."""
KNOWN = {
    "dns error": "the name of the host is not known",
    "TimedOut|operation timed out": "no answer in time",
    "IncompleteMessage|connection closed": "the connection was closed without an answer",
}
"""What the library says, as a pattern, and what is said instead."""


def is_missing(error: Exception) -> bool:
    """Whether the bucket answered that it has no such object."""
    return isinstance(error, FileNotFoundError) and _code(str(error)) in NO_OBJECT


def is_without_conditions(error: Exception) -> bool:
    """Whether the service knows no "only where there is none yet", which is a later part of the protocol."""
    return _code(str(error)) == "NotImplemented" or isinstance(error, exceptions.NotSupportedError)


def is_kept(error: Exception) -> bool:
    """Whether the service knows the object and the login, and will not delete: by a lock, a policy or a right."""
    text = str(error)
    code, status = _code(text), int(_found(r"status code: (\d{3})", text) or 0)
    if code in NO_BUCKET or WRONG_LOGIN.search(code):
        return False
    refused = isinstance(error, exceptions.PermissionDeniedError | PermissionError | exceptions.PreconditionError)
    return refused or status in KEEPING or _found(OF_ONE_KEY, text[:LONGEST]) not in PASSING


def translate(error: Exception, url: str, *, reading: bool = True) -> errors.PartwardenError:
    """The error of an object store as one of ours: what of ``url`` could not be done, why, and what to do. Where it was
    not ``reading`` one object, a service that finds nothing there has no such bucket."""
    text = str(error)
    code, status, said = _code(text), int(_found(r"status code: (\d{3})", text) or 0), _said(text)
    if isinstance(error, exceptions.AlreadyExistsError):
        return errors.ObjectExists(f"{url} exists already, and is never overwritten")
    if code in NO_BUCKET or (is_missing(error) and not reading):
        return errors.DestinationNotFound(f"{url}: the bucket is not there: {said}; make it, or correct its name")
    if WRONG_LOGIN.search(code):
        return errors.DestinationDenied(f"{url}: the credentials were refused: {said}; correct them")
    if FULL.search(code) or status == NO_ROOM:
        return errors.DestinationFull(f"{url}: {said}: make room, or raise the quota")
    if is_missing(error):
        return errors.ArchiveDamaged(f"{url} is not there")
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError) or status in FORBIDDEN:
        return errors.DestinationDenied(
            f"{url}: {said}: check the credentials, and let them read, write and list below that address"
        )
    if isinstance(error, exceptions.InvalidPathError | ValueError):
        return errors.DestinationNotFound(f"{url} is no address of an object: {text.splitlines()[0]}")
    if 300 <= status < 500 and status not in BUSY and code != LOST:
        return errors.DestinationDenied(
            f"{url}: the service refuses that: {said}; check region, endpoint and pathStyle"
        )
    if "InvalidCertificate" in text:
        return errors.DestinationUnreachable(
            f"{url}: the server's certificate is not trusted ({_within(text, 'InvalidCertificate')}): give the CA that "
            "signed it as ca.crt"
        )
    return errors.DestinationUnreachable(f"{url}: {said}")


def _code(text: str) -> str:
    """What the service calls the cause: in XML, or in JSON as Google's JSON API and token services write it."""
    return _found(r"<Code>(\w+)</Code>", text) or _found(r'"(?:reason|error)":\s*"(\w+)"', text)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1].strip() if found else ""


def _said(text: str) -> str:
    """In the service's words, else in those of the system, else in the library's."""
    # Azure writes the number of the request and the time on further lines.
    for pattern in (r"<Message>([^<\n]*)", r'"(?:message|error_description)":\s*"([^"\n]*)"'):
        if message := _found(pattern, text):
            return f"{_code(text)}: {message.rstrip('.')}"
    if code := _found(OF_ONE_KEY, text[:LONGEST]):
        return f"{code}: {text.partition(' (code: ')[0].rpartition(': ')[2].rstrip('.')}"
    for system in text.split("Os {")[1:]:
        if words := _found(r'message: "([^"]*)"', system.partition("}")[0]):
            return words
    known = next((words for pattern, words in KNOWN.items() if re.search(pattern, text)), "")
    return known or _found(r"status code: (\d{3} [\w ]+)", text) or text.splitlines()[0].split(" - ")[-1].strip()


def _within(text: str, word: str) -> str:
    """The innermost name of what the library says of it."""
    names = re.findall(r"\w+", text.split(word, 1)[1].split("}", 1)[0])
    return next((each for each in reversed(names) if each not in ("Other", "OtherError")), word)


PART = 16 << 20
"""Bytes of a part that is written, at least, and of a range that is read. A few are in memory at a time."""
PARTS = 9000
"""Parts that one object is planned for, of 10,000 that S3 takes."""
AT_ONCE = 2
"""Parts: one on its way, one being filled."""
POLITE = 5.0
"""Seconds that an upload which is given up may take to take its parts back."""
T = TypeVar("T")
P = ParamSpec("P")
FAILED = (exceptions.BaseError, OSError, ValueError)
"""What the library raises: FileNotFoundError and PermissionError among them."""


class Objects:
    """A `Store`. ``prefix`` stands before every key; ``base`` is the URL of both, without a last slash."""

    def __init__(self, store: ObjectStore, prefix: str, base: str) -> None:
        self.store, self.base = store, base
        self.uploads: Uploads | None = None
        """Those that were never completed, where they can be listed."""
        self.prefix = "/".join(part for part in prefix.split("/") if part)

    def within(self, prefix: str) -> Objects:
        """The same, for what lies below that prefix."""
        base = "/".join(part for part in (self.base, prefix.strip("/")) if part)
        return Objects(self.store, f"{self.prefix}/{prefix}", base)

    def put(self, key: str, chunks: Iterable[bytes], expected: int = 0) -> None:
        # Parts become an object without any condition. So large ones are written to a key that no other attempt has.
        if self._exists(key):
            raise errors.ObjectExists(f"{self.url(key)} exists already, and is never overwritten")
        pieces, first = iter(chunks), bytearray()
        for piece in pieces:
            first += piece
            if len(first) > PART:
                break
        whole = bytes(first)
        if len(whole) <= PART:
            return self._put_whole(key, whole)
        stop = threading.Event()
        # In a thread of its own: the library would keep this one from hearing of a signal until the end.
        done = _aside(self._put_parts, key, _until(stop, chain([whole], pieces)), expected)
        try:
            done.result()
        except BaseException:
            stop.set()
            # What is being sent may take minutes where the service answers no more.
            wait([done], POLITE)
            raise

    def _put_whole(self, key: str, content: bytes) -> None:
        with self._translating(key, reading=False):
            try:
                obstore.put(self.store, self._key(key), content, mode="create", use_multipart=False)
            except FAILED as error:
                if not is_without_conditions(error):
                    raise
                obstore.put(self.store, self._key(key), content, use_multipart=False)

    def _put_parts(self, key: str, chunks: Iterator[bytes], expected: int) -> None:
        with self._translating(key, reading=False):
            size = part_size(expected)
            obstore.put(
                self.store, self._key(key), chunks, use_multipart=True, chunk_size=size, max_concurrency=AT_ONCE
            )

    def get(self, key: str) -> Iterator[bytes]:
        """Range by range: what a lost connection costs is one of them, and is asked for again."""
        with self._translating(key):
            whole = obstore.get(self.store, self._key(key))
            size = whole.meta["size"]
            if size <= PART:
                yield bytes(whole.bytes())
                return
        del whole
        ahead = _aside(self._range, key, 0, size)
        for start in range(PART, size + PART, PART):
            piece = ahead.result()
            if start < size:
                ahead = _aside(self._range, key, start, size)
            yield piece

    def _range(self, key: str, start: int, size: int) -> bytes:
        end = min(start + PART, size)
        with self._translating(key):
            found = bytes(obstore.get_range(self.store, self._key(key), start=start, end=end))
        if len(found) != end - start:
            raise errors.ArchiveDamaged(f"{self.url(key)} was changed while it was read")
        return found

    def _exists(self, key: str) -> bool:
        """Whether there is such an object. Not by HEAD, whose answer tells no missing object from a missing bucket."""
        with self._translating(key):
            try:
                obstore.get(self.store, self._key(key))
            except FAILED as error:
                if not is_missing(error):
                    raise
                return False
        return True

    def below(self, key: str, name: str) -> Iterator[str]:
        skipped = f"{self.prefix}/" if self.prefix else ""
        with self._translating(key, reading=False):
            for page in obstore.list(self.store, prefix=self._key(key) or None):
                for each in page:
                    if each["path"].rsplit("/", 1)[-1] == name:
                        yield each["path"].removeprefix(skipped)

    def remove(self, key: str) -> bool:
        version = self._version(key)
        with self._translating(key):
            try:
                obstore.delete(self.store, self._key(key))
            except FAILED as error:
                if is_missing(error):
                    return False
                if is_kept(error):
                    raise errors.DeletionRefused(
                        f"{self.url(key)} cannot be deleted: {_said(str(error))}; the bucket keeps it (Object Lock, "
                        "legal hold, retention policy), or the credentials may not delete: wait, or change that there"
                    ) from None
                raise
        return version is not None

    def _version(self, key: str) -> str | None:
        """That of the object, where the bucket has versions: then a deletion only hides it, also where Object Lock or a
        retention policy keeps it. None where that cannot be seen: Google's has a number for every object."""
        if isinstance(self.store, S3Store | AzureStore):
            with suppress(*FAILED):
                version = obstore.head(self.store, self._key(key))["version"]
                return version if version != SUSPENDED else None
        return None

    def url(self, key: str) -> str:
        return f"{self.base}/{key}"

    def _key(self, key: str) -> str:
        return "/".join(part for part in (self.prefix, key.strip("/")) if part)

    @contextmanager
    def _translating(self, key: str, *, reading: bool = True) -> Iterator[None]:
        try:
            yield
        except FAILED as error:
            raise translate(error, self.url(key), reading=reading) from None


def _aside(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> Future[T]:
    """Begin it in a thread that does not keep the process from ending."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work(*given, **named))
        except BaseException as error:  # noqa: BLE001 - raised again by `Future.result`
            done.set_exception(error)

    threading.Thread(target=run, name="partwarden-object", daemon=True).start()
    return done


def part_size(expected: int) -> int:
    """Bytes of each part of an object of about that many bytes: so many that there are not too many parts. A dump may
    be larger than its table, and is not half as large again: numbers take more room as text, but compressed."""
    return max(PART, -(-(expected + expected // 2) // PARTS))


def _until(stop: threading.Event, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if stop.is_set():
            raise InterruptedError("stopped")
        yield piece
