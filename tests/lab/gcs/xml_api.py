"""What Google's XML API answers, with which the library writes and lists, by way of fake-gcs-server's JSON API.

The server has objects, buckets, ranges and conditions. Of the XML API it knows downloads and lists only, and asks for
no credentials. So this front does what is missing: it checks the token, calls errors by the codes of the XML API, and
keeps the parts of an upload until they become an object.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from urllib.parse import quote, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from lab.front import Answer, Front, Request

WORDS = {
    "AuthenticationRequired": (401, "Authentication required."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (404, "The requested upload was not found."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold."),
}
CONDITION = "x-goog-if-generation-match"
JSON_API = "/storage/v1/b/"
SERVICE = ("/storage/", "/upload/", "/_internal/")


def refusal(code: str) -> Answer:
    """The answer with that code."""
    status, message = WORDS[code]
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


class XMLAPI:
    """A rule of the front before the server. ``key``: of the one service account."""

    def __init__(self, front: Front, key: rsa.RSAPublicKey) -> None:
        self.front, self.key = front, key
        self.uploads: dict[str, dict[int, bytes]] = {}

    def __call__(self, request: Request) -> Answer | None:
        if request.path.startswith(SERVICE):
            return None
        if not self._authentic(request.headers.get("authorization", "")):
            return refusal("AuthenticationRequired")
        bucket, _, key = request.path.lstrip("/").partition("/")
        if self._asked("GET", JSON_API + quote(bucket, safe="")).status != 200:
            return refusal("NoSuchBucket")
        if request.method == "GET" and key:
            found = self.front.ask(request)
            return refusal("NoSuchKey") if found.status == 404 else found
        if request.method in ("PUT", "POST", "DELETE"):
            return self._change(request, bucket, key)
        return None

    def _authentic(self, header: str) -> bool:
        """Whether the token is one that the service account signed."""
        head, _, signature = header.removeprefix("Bearer ").rpartition(".")
        try:
            self.key.verify(
                base64.urlsafe_b64decode(signature + "=="), head.encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except (InvalidSignature, ValueError):
            return False
        return True

    def _change(self, request: Request, bucket: str, key: str) -> Answer:
        query, upload = request.query, request.query.get("uploadId", "")
        if "uploads" in query:
            upload = secrets.token_hex(8)
            self.uploads[upload] = {}
            words = f"<Bucket>{bucket}</Bucket><Key>x</Key><UploadId>{upload}</UploadId>"
            return _xml(f"<InitiateMultipartUploadResult>{words}</InitiateMultipartUploadResult>")
        if upload and upload not in self.uploads:
            return refusal("NoSuchUpload")
        if upload and request.method == "PUT":
            self.uploads[upload][int(query["partNumber"])] = request.content
            return Answer(200, b"", {"ETag": f'"{upload}-{query["partNumber"]}"'})
        if upload and request.method == "DELETE":
            del self.uploads[upload]
            return Answer(204)
        if upload:
            parts = self.uploads.pop(upload)
            named = [int(number) for number in re.findall(r"<PartNumber>(\d+)<", request.content.decode())]
            done = self._insert(bucket, key, b"".join(parts[number] for number in named), "")
            tag = f"<ETag>{done.headers['ETag']}</ETag>"
            return _xml(f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>")
        if request.method == "DELETE":
            path = f"{JSON_API}{quote(bucket, safe='')}/o/{quote(key, safe='')}"
            return Answer(204) if self._asked("DELETE", path).status == 200 else refusal("NoSuchKey")
        return self._insert(bucket, key, request.content, request.headers.get(CONDITION, ""))

    def _insert(self, bucket: str, key: str, content: bytes, generation: str) -> Answer:
        query = {"uploadType": "media", "name": key} | ({"ifGenerationMatch": generation} if generation else {})
        done = self._asked("POST", f"/upload/storage/v1/b/{quote(bucket, safe='')}/o?{urlencode(query)}", content)
        if done.status == 412:
            return refusal("PreconditionFailed")
        if done.status != 200:
            return done
        made = json.loads(done.content)
        return Answer(200, b"", {"ETag": f'"{made["etag"]}"', "x-goog-generation": str(made["generation"])})

    def _asked(self, method: str, target: str, content: bytes = b"") -> Answer:
        """Of the JSON API."""
        return self.front.ask(Request(method, target, {"host": "127.0.0.1"}, content))


def _xml(body: str) -> Answer:
    return Answer(200, f"<?xml version='1.0' encoding='UTF-8'?>{body}".encode(), {"Content-Type": "application/xml"})
