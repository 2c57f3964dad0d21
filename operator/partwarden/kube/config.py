"""Kubeconfig or service account: where the API server is, and with which credentials; for every client here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config.config_exception import ConfigException

from ..errors import StartupError

IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def configure(kubeconfig: Path | None) -> kubernetes.client.Configuration:
    """``--kubeconfig``, else the pod's service account, else ``KUBECONFIG``. Raises `StartupError`."""
    configuration = kubernetes.client.Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = str(kubeconfig) if kubeconfig else None
            kubernetes.config.load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise StartupError(
            f"no way to the Kubernetes API: {error}; give --kubeconfig or KUBECONFIG, or run in a pod that has a "
            "service account"
        ) from None
    return configuration


def own(path: Path | None, context: str | None) -> tuple[kubernetes.client.Configuration, str]:
    """As kubectl finds it: ``path``, else ``KUBECONFIG`` or ~/.kube/config, else a pod's service account; and its
    namespace. Raises `StartupError`."""
    configuration = kubernetes.client.Configuration()
    file = str(path) if path else None
    try:
        contexts, chosen = kubernetes.config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
        kubernetes.config.load_kube_config(file, context, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        if path is None and context is None and IN_POD.is_file():
            kubernetes.config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration, IN_POD.read_text().strip()
        why = " ".join(str(error).split())
        raise StartupError(f"no way to a Kubernetes cluster: {why}; give --kubeconfig or KUBECONFIG") from None
    if context:
        chosen = next(each for each in contexts if each["name"] == context)
    return configuration, chosen["context"].get("namespace") or "default"


def credentials(found: kubernetes.client.Configuration) -> dict[str, Any]:
    """What another client needs to reach the same server as the same identity, by the names of kopf's `ConnectionInfo`;
    files by their paths, the token as it is now."""
    # Asking for the token is what renews one that expires.
    header = found.get_api_key_with_prefix("BearerToken", "authorization") or ""
    scheme, _, token = header.rpartition(" ")
    return {
        "server": found.host,
        "ca_path": found.ssl_ca_cert,
        "insecure": not found.verify_ssl,
        "certificate_path": found.cert_file,
        "private_key_path": found.key_file,
        "username": found.username or None,
        "password": found.password or None,
        "scheme": scheme.capitalize() or None,
        "token": token or None,
        # The official client minds NO_PROXY by itself, when it connects; others do not.
        "proxy_url": None if should_bypass_proxies(found.host, found.no_proxy or "") else found.proxy,
    }
