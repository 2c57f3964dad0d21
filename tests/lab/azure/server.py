"""An Azure Blob server that ends with the process that started it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from obstore.store import AzureStore

from lab.azure import command
from lab.cluster import Reporter
from lab.front import Request
from lab.postgres import LabError
from lab.served import HOST, Served

ALL = "racwl"
READING = "rl"
SAS_VERSION = "2020-12-06"
API_VERSION = "2021-08-06"


class AzureServer(Served):
    """One server. Made by `start`.

    Azure names the account in the host name, azurite on a bare address in the path. So the front puts the host name in
    that Azure would have, and clients are given `endpoint` and `account`, as for Azure.
    """

    def __init__(self) -> None:
        super().__init__("azurite", command.version())
        self.account, self.key = "lab", base64.b64encode(secrets.token_bytes(32)).decode()
        self.front.rules.append(self._name_the_account)

    @classmethod
    def start(cls, say: Reporter) -> AzureServer:
        """A new server that answers. Raises LabError when it cannot be installed or does not start."""
        program = command.built(say)
        server = cls()
        options = [f"--blobHost={HOST}", f"--blobPort={server.port}", "--inMemoryPersistence", "--silent"]
        options += ["--disableTelemetry", "--skipApiVersionCheck"]
        server.run([*program, *options], {**os.environ, "AZURITE_ACCOUNTS": f"{server.account}:{server.key}"})
        return server

    def sas(self, permissions: str = ALL) -> str:
        """A shared access signature for this account, good for an hour."""
        expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        signed = [self.account, permissions, "b", "co", "", expiry, "", "https,http", SAS_VERSION, "", ""]
        digest = hmac.digest(base64.b64decode(self.key), "\n".join(signed).encode(), hashlib.sha256)
        return urlencode(
            {
                "sv": SAS_VERSION,
                "ss": "b",
                "srt": "co",
                "sp": permissions,
                "se": expiry,
                "spr": "https,http",
                "sig": base64.b64encode(digest).decode(),
            }
        )

    def store(self, container: str) -> AzureStore:
        """A client that may do everything in that container."""
        return AzureStore(
            container,
            endpoint=self.endpoint,
            account_name=self.account,
            account_key=self.key,
            client_options={"allow_http": True},
        )

    def make_container(self, name: str) -> None:
        """Raises LabError."""
        self._container("PUT", name, 201)

    def remove_container(self, name: str) -> None:
        """With all that is in it. Raises LabError."""
        self._container("DELETE", name, 202)

    def _container(self, method: str, name: str, expected: int) -> None:
        target = f"/{name}?restype=container&{self.sas('racwdl')}"
        answer = self.front.answer(Request(method, target, {"x-ms-version": API_VERSION}, b""))
        if answer.status != expected:
            raise LabError(f"{method} container {name}: {answer.status} {answer.content.decode(errors='replace')}")

    def _name_the_account(self, request: Request) -> None:
        request.headers["host"] = f"{self.account}.blob.core.lab"

    def why_not_ready(self) -> str:
        try:
            self.front.ask(Request("GET", "/", {"host": HOST}, b""))
        except OSError as error:
            return str(error)
        return ""
