"""Uploads in parts to S3 that nothing completed, and that are removed: what a writer that was killed leaves behind.

The library that archives are written with (obstore) can neither list nor abort them, so these two requests are made
here, with the credentials of the Secret, by AWS Signature Version 4. Azure removes such parts by itself after a week.
Of Google Cloud Storage, and with a pod's own identity, they are left to a rule of the bucket.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import string
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from html import unescape
from http.client import HTTPException, HTTPResponse
from itertools import islice
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ..api.destination import S3
from ..errors import DestinationDenied, DestinationUnreachable, PartwardenError, printable
from .manifest import DATA, GENERATED
from .parquet import layout

TIMEOUT, PATIENCE = 20.0, 120.0
"""Seconds for a part of an answer, and for all requests together: the Job that tidies up has done its work, and its end
is waited for."""
LARGEST = 4 << 20
"""Bytes of an answer that are read: a page has 1,000 uploads at most, with keys of at most 1,024 bytes."""
LONGEST = 4096
"""Bytes of an answer that refuses that are read."""
MOST_PAGES, MOST_ABORTED = 20, 1000
"""At one time: what is left is removed by the next Job."""
ATTEMPT = 8
"""Digits that tell one attempt at an archive from another."""
LONGEST_KEY = 1024
"""Bytes of a key, as S3 takes them."""
EMPTY = hashlib.sha256(b"").hexdigest()


class Upload(NamedTuple):
    """One that is neither completed nor aborted. ``begun`` is aware; None where the service does not say it."""

    key: str
    id: str
    begun: datetime | None


class Page(NamedTuple):
    """A part of a listing. ``now``: by the service's clock. ``following``: the key after which the next one begins."""

    uploads: tuple[Upload, ...]
    now: datetime | None
    following: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """The uploads to one bucket. ``root``: its URL, without a last slash; ``prefix``: of the keys of archives."""

    root: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)
    authority: str = ""
    """The certificate of the CA that signed the server's, beside those of the system."""

    @classmethod
    def of(cls, place: S3, endpoint: str | None, options: Mapping[str, str], authority: str | None) -> Uploads:
        """To a policy's destination. ``endpoint`` and ``options``: as the library takes them."""
        bucket, _, prefix = place.url.removeprefix("s3://").partition("/")
        region = options["region"]
        if endpoint is None:
            host = f"s3.{region}.amazonaws.com"
            endpoint = f"https://{host}" if place.path_style else f"https://{bucket}.{host}"
        return cls(
            root=f"{endpoint}/{bucket}" if place.path_style else endpoint,
            prefix="/".join(part for part in prefix.split("/") if part),
            region=region,
            access_key=options["access_key_id"],
            secret_key=options["secret_access_key"],
            token=options.get("session_token", ""),
            authority=authority or "",
        )

    def abort(self, older: timedelta) -> Iterator[str]:
        """Abort the uploads of archives that began longer ago, by the service's clock. Returns their keys.

        Safe: what is aborted is no object, and never becomes one. Were its writer alive after all, its archive would
        fail, and be made again. Raises `DestinationDenied` where the service does not allow that, or does not know it,
        and `DestinationUnreachable`.
        """
        end = time.monotonic() + PATIENCE
        # All is listed first: not every service goes on from an upload that is not there any more.
        for each in list(islice(self._abandoned(older, end), MOST_ABORTED)):
            self._ask("DELETE", quote(each.key), {"uploadId": each.id}, end)
            yield each.key

    def _abandoned(self, older: timedelta, end: float) -> Iterator[Upload]:
        for page in self._pages(end):
            for each in page.uploads:
                old = each.begun is not None and page.now is not None and page.now - each.begun > older
                if old and is_ours(each.key):
                    yield each

    def _pages(self, end: float) -> Iterator[Page]:
        following: str | None = ""
        for _ in range(MOST_PAGES):
            if following is None:
                return
            page = self._page(following, end)
            # A service that repeats itself is not asked for ever.
            following = page.following if page.following != following else None
            yield page

    def _page(self, last: str, end: float) -> Page:
        below = {"prefix": f"{self.prefix}/"} if self.prefix else {}
        # Each of our keys is of one attempt alone: by the key the next page is found.
        after = {"key-marker": last} if last else {}
        text, now = self._ask("GET", "", {"uploads": "", **below, **after}, end)
        uploads, (rest, *entries) = [], text.split("<Upload>")
        for entry in entries:
            found, _, more = entry.partition("</Upload>")
            rest += more
            key, own_id, begun = (_value(found, name) for name in ("Key", "UploadId", "Initiated"))
            # What the service says is no more trusted than that.
            if key.startswith(below.get("prefix", "")) and own_id:
                uploads.append(Upload(key, own_id, _moment(begun)))
        following = _value(rest, "NextKeyMarker") if _value(rest, "IsTruncated") == "true" else ""
        return Page(tuple(uploads), now, following or None)

    def _ask(self, method: str, path: str, query: Mapping[str, str], end: float) -> tuple[str, datetime | None]:
        """The body of the answer, and the service's clock. ``path``: of the object, quoted; empty for the bucket.
        ``end``: by the monotonic clock."""
        url = f"{self.root}/{path}" if path else self.root
        words = "&".join(f"{quote(name, safe='')}={quote(each, safe='')}" for name, each in sorted(query.items()))
        headers = self._signed(method, url, words)
        # It is http or https: see `destination.ENDPOINT`.
        request = urllib.request.Request(f"{url}?{words}", headers=headers, method=method)  # noqa: S310
        try:
            with self._opener().open(request, timeout=TIMEOUT) as answer:
                body, said = _read(answer, end), answer.headers.get("Date")
        except urllib.error.HTTPError as error:
            with error:
                if method == "DELETE" and error.code == 404:
                    return "", None
                why = _value(error.read1(LONGEST).decode(errors="replace"), "Message") or str(error.reason)
                words = f"{error.code} {printable(why)[:200]}"
            raise self._error(error.code)(f"{self.root}: the service refuses {method} of uploads: {words}") from None
        except (OSError, ValueError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            raise DestinationUnreachable(f"{self.root}: {printable(str(cause))[:200]}") from None
        if len(body) > LARGEST:
            raise DestinationDenied(f"{self.root}: an answer about uploads has more than {LARGEST >> 20} MiB")
        return body.decode(errors="replace"), _clock(said)

    @staticmethod
    def _error(code: int) -> type[PartwardenError]:
        return DestinationUnreachable if code >= 500 and code != 501 else DestinationDenied

    def _opener(self) -> urllib.request.OpenerDirector:
        if not self.root.startswith("https:"):
            return urllib.request.build_opener(_Faithful)
        context = ssl.create_default_context()
        if self.authority:
            context.load_verify_locations(cadata=self.authority)
        return urllib.request.build_opener(_Faithful, urllib.request.HTTPSHandler(context=context))

    def _signed(self, method: str, url: str, query: str) -> dict[str, str]:
        """The headers. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html"""
        now, parts = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), urlsplit(url)
        headers = {"host": parts.netloc, "x-amz-content-sha256": EMPTY, "x-amz-date": now}
        headers |= {"x-amz-security-token": self.token} if self.token else {}
        names, lines = ";".join(headers), [f"{name}:{value}" for name, value in headers.items()]
        canonical = "\n".join([method, parts.path or "/", query, *lines, "", names, EMPTY])
        scope = (now[:8], self.region, "s3", "aws4_request")
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        key = f"AWS4{self.secret_key}".encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), digest])
        signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
        credential = f"Credential={self.access_key}/{'/'.join(scope)}"
        return headers | {"Authorization": f"AWS4-HMAC-SHA256 {credential},SignedHeaders={names},Signature={signature}"}


class _Faithful(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: what was signed is for one server."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _read(answer: HTTPResponse, end: float) -> bytes:
    """At least what is read of it. Raises TimeoutError."""
    body = bytearray()
    while len(body) <= LARGEST and (piece := answer.read1(1 << 16)):
        body += piece
        if time.monotonic() > end:
            raise TimeoutError(f"no whole answer within {PATIENCE:.0f} s")
    return bytes(body)


def is_ours(key: str) -> bool:
    """Whether it is one as `create.archive` makes them: another program's uploads below the same prefix are none."""
    folder, _, name = key.rpartition("/")
    if name == layout.NAME:
        folder = f"{folder}/".rpartition(f"/{layout.FOLDER}/")[0]
    own_id, _, attempt = folder.rpartition("/")[2].rpartition("-")
    written = own_id and len(attempt) == ATTEMPT and not attempt.strip(string.hexdigits.lower())
    return bool(written) and name in (DATA, GENERATED, layout.NAME) and len(key) <= LONGEST_KEY


def _value(text: str, name: str) -> str:
    return unescape(text.partition(f"<{name}>")[2].partition("<")[0])


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _clock(text: str | None) -> datetime | None:
    """Of a header Date."""
    try:
        found = parsedate_to_datetime(text) if text else None
        return found if found is not None and found.tzinfo else None
    except (ValueError, TypeError, OverflowError):
        return None
