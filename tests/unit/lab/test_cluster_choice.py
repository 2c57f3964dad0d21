"""Which provider of clusters is used."""

from pathlib import Path

import pytest

from lab import cluster as clusters
from lab.cluster import ClusterError, Reporter, choice, existing, kind
from lab.cluster import state as states

QUIET = Reporter(quiet=True)


@pytest.mark.parametrize("word", choice.PROVIDERS)
def test_a_provider_can_be_named(word: str) -> None:
    assert choice.wanted({"CLUSTER": word}) == word


@pytest.mark.parametrize("environment", [{}, {"CLUSTER": ""}, {"CLUSTER": " "}])
def test_the_choice_can_be_left(environment: dict[str, str]) -> None:
    assert choice.wanted(environment) == ""


def test_another_word_is_refused_with_the_words_that_are_known() -> None:
    with pytest.raises(ClusterError, match="CLUSTER=minikube names no provider; use one of kind, local, existing"):
        choice.wanted({"CLUSTER": "minikube"})


def test_an_existing_cluster_is_named_on_purpose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "of-the-shell"))
    monkeypatch.delenv(existing.VARIABLE, raising=False)
    with pytest.raises(ClusterError, match="needs PARTWARDEN_KUBECONFIG"):
        existing.start("demo", QUIET)
    monkeypatch.setenv(existing.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match="there is no such file"):
        existing.start("demo", QUIET)


@pytest.mark.parametrize("name", ["", "Demo", "1st", "a_b", "../up", "a" * 31, "é"])
def test_names_that_are_no_device_and_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is no name for a cluster"):
        states.folder_of(name)


def test_kind_that_is_asked_for_and_cannot_be_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CLUSTER", "kind")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(
        ClusterError, match=r"CLUSTER=kind cannot be done: (no docker engine answers|there is no docker)"
    ):
        clusters.start("unit", QUIET)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="CLUSTER=kind cannot be done: there is no docker command"):
        clusters.start("unit", QUIET)
    assert list((tmp_path / "partwarden" / "clusters").iterdir()) == []


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("ERROR: failed to create cluster\n\nCommand Output: docker: no such image\n", "docker: no such image"),
        ("Creating cluster\nERROR: no nodes found\n", "no nodes found"),
        ("", "it did not say why"),
    ],
)
def test_the_log_of_kind_is_reported_in_one_line(log: str, reason: str) -> None:
    assert kind.reason_in(log) == reason


def test_the_pinned_node_image_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(kind.VARIABLE, raising=False)
    assert "@sha256:" in kind.node_image()
    monkeypatch.setenv(kind.VARIABLE, "mine:1")
    assert kind.node_image() == "mine:1"
