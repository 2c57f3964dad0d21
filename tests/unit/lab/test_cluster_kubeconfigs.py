"""A kubeconfig stands alone and is its owner's."""

import ssl
from pathlib import Path

from lab.cluster.certificates import Authority
from lab.cluster.kubeconfigs import server_of, write_kubeconfig


def test_a_kubeconfig_is_private_and_names_its_server(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path, "ca")
    pair = authority.issue("admin", "someone", ["system:masters"], hosts=["127.0.0.1", "kubernetes"])
    ssl.create_default_context(cafile=str(tmp_path / "ca.crt")).load_cert_chain(*map(str, pair))
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "demo", "https://198.18.0.2:6443", tmp_path / "ca.crt", *pair)
    assert server_of(path) == "https://198.18.0.2:6443"
    assert path.stat().st_mode & 0o777 == 0o600
    assert pair[1].stat().st_mode & 0o777 == 0o600


def test_a_kubeconfig_without_a_context_names_no_server(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\n")
    assert server_of(path) == ""
