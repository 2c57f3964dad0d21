"""A server of Google Cloud Storage's API that ends with the process that started it."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from obstore.store import GCSStore

from lab.cluster import Reporter
from lab.front import Request
from lab.gcs import command
from lab.gcs.xml_api import JSON_API, XMLAPI
from lab.postgres import LabError
from lab.served import HOST, Served


class GCSServer(Served):
    """One server behind the front that `XMLAPI` describes. Made by `start`. Clients are given `endpoint` and
    `credentials`."""

    def __init__(self) -> None:
        super().__init__("fake-gcs-server", command.version())
        self._key = new_key()
        self.front.rules.append(XMLAPI(self.front, self._key.public_key()))

    @classmethod
    def start(cls, say: Reporter) -> GCSServer:
        """A new server that answers. Raises ClusterError when it cannot be built, LabError when it does not start."""
        program = command.built(say)
        server = cls()
        options = ["-backend=memory", "-scheme=http", f"-host={HOST}", f"-port={server.port}", f"-public-host={HOST}"]
        server.run([str(program), *options, "-log-level=warn"], os.environ)
        return server

    def credentials(self, key: rsa.RSAPrivateKey | None = None) -> str:
        """The service account's credentials.json, with its own key or another."""
        form = serialization.PrivateFormat.PKCS8
        pem = (key or self._key).private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "lab",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": "archives@lab.iam.gserviceaccount.com",
                "client_id": "1",
            },
            indent=2,
        )

    def store(self, bucket: str) -> GCSStore:
        """A client that may do everything in that bucket."""
        return GCSStore(
            bucket,
            base_url=self.endpoint,
            service_account_key=self.credentials(),
            client_options={"allow_http": True},
        )

    def make_bucket(self, name: str) -> None:
        """Raises LabError."""
        self._ask("POST", JSON_API.rstrip("/"), json.dumps({"name": name}).encode())

    def remove_bucket(self, name: str) -> None:
        """With all that is in it. Raises LabError."""
        path = f"{JSON_API}{name}"
        for each in json.loads(self._ask("GET", f"{path}/o")).get("items", []):
            self._ask("DELETE", f"{path}/o/{quote(each['name'], safe='')}")
        self._ask("DELETE", path)

    def _ask(self, method: str, target: str, content: bytes = b"") -> bytes:
        """Of its JSON API. Raises LabError unless it was done."""
        answer = self.front.ask(Request(method, target, {"host": HOST, "content-type": "application/json"}, content))
        if answer.status >= 300:
            raise LabError(f"{method} {target}: {answer.status} {answer.content.decode(errors='replace')}")
        return answer.content

    def why_not_ready(self) -> str:
        try:
            self._ask("GET", "/_internal/healthcheck")
        except (OSError, LabError) as error:
            return str(error)
        return ""


def new_key() -> rsa.RSAPrivateKey:
    """Of a service account."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
