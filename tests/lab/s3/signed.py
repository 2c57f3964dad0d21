"""An S3 client in plain HTTP: AWS Signature Version 4, without retries."""

from __future__ import annotations

import hashlib
import hmac
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

TIMEOUT = 30.0
"""Seconds for one answer."""


class S3Error(Exception):
    """An S3 server could not be started, or did not do what was asked; the message says which, and why."""


@dataclass(frozen=True)
class Keys:
    """Of one user; the secret is not shown."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The HTTP status, and the body."""

    status: int
    content: bytes


@dataclass(frozen=True)
class Signed:
    """Sends requests as one user. ``authority`` is the PEM file of the server's CA, None without TLS."""

    endpoint: str
    keys: Keys
    region: str
    authority: Path | None = None

    def ask(
        self,
        method: str,
        path: str,
        content: bytes = b"",
        query: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, such as ask("PUT", "/bucket/key", b"content"). ``more``: headers, by names in lower case. Raises
        OSError when nothing answers."""
        asked = quote(path)
        pairs = sorted((query or {}).items())
        encoded = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
        headers = self._headers(method, asked, encoded, content, more or {})
        url = f"{self.endpoint}{asked}" + (f"?{encoded}" if encoded else "")
        request = urllib.request.Request(url, content or None, headers, method=method)  # noqa: S310
        try:
            with self._opener().open(request, timeout=TIMEOUT) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())

    def _opener(self) -> urllib.request.OpenerDirector:
        context = ssl.create_default_context(cafile=self.authority) if self.authority else None
        return urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def _headers(self, method: str, path: str, query: str, content: bytes, more: Mapping[str, str]) -> dict[str, str]:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(content).hexdigest()
        own = {"host": urlsplit(self.endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": now}
        headers = dict(sorted({**own, **more}.items()))
        named = ";".join(headers)
        lines = [f"{name}:{value}" for name, value in headers.items()]
        canonical = "\n".join([method, path, query, *lines, "", named, digest])
        scope = (now[:8], self.region, "s3", "aws4_request")
        to_sign = "\n".join(["AWS4-HMAC-SHA256", now, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.keys.secret_key}".encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
        credential = f"{self.keys.access_key}/{'/'.join(scope)}"
        signed = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={named}, Signature={signature}"
        return {**headers, "Authorization": signed, "Content-Type": "application/octet-stream"}
