"""The official client with a given kubeconfig, without the user's own configuration."""

import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from kubernetes import client, config

from .model import ClusterError


def connect(kubeconfig: Path, direct: bool) -> client.ApiClient:
    """A client for the current context of `kubeconfig`; `direct` if no proxy leads there.

    Raises ClusterError when the file cannot be used.
    """
    settings = client.Configuration()
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig), client_configuration=settings, persist_config=False
        )
    except (config.ConfigException, OSError) as error:
        raise ClusterError(f"the kubeconfig {kubeconfig} cannot be used: {error}") from error
    if direct:
        settings.proxy = None
    return client.ApiClient(settings)


def plain(connection: client.ApiClient, answer: object) -> Any:
    """An answer of the client as kubectl would print it in JSON: absent fields are absent."""
    return connection.sanitize_for_serialization(answer)  # type: ignore[no-untyped-call]


def ready(server: str, authority: Path, certificate: Path, key: Path) -> str:
    """ "" when the API server says that it is ready, else what it says."""
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(str(certificate), str(key))
    handlers = urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    try:
        with urllib.request.build_opener(*handlers).open(f"{server}/readyz", timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode(errors="replace")
    except OSError as error:
        return str(error)
