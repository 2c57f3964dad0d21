"""Building the commands of a cluster: what is counted, what a cache entry depends on, what an image is made of."""

import tarfile
from pathlib import Path

import pytest

from lab.cluster import ClusterError, gobuild, image, kubernetes
from lab.cluster.gobuild import Recipe


@pytest.mark.parametrize(
    ("line", "package"),
    [
        ("k8s.io/api/core/v1\n", "k8s.io/api/core/v1"),
        ("runtime/internal/sys\n", "runtime/internal/sys"),
        ("go.etcd.io/etcd/server/v3\n", "go.etcd.io/etcd/server/v3"),
        ("go: downloading k8s.io/api v0.37.2\n", ""),
        ("# k8s.io/kubernetes/cmd/kubelet\n", ""),
        ("./main.go:7:2: undefined: x\n", ""),
        ("\n", ""),
    ],
)
def test_what_go_says_is_counted_only_when_it_is_a_package(line: str, package: str) -> None:
    assert gobuild.compiled_package(line) == package


def test_the_version_is_read_from_the_module(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n\nrequire (\n\ta.b/c v1.2.3 // indirect\n)\n\nrequire d.e/f v0.1.0\n")
    assert gobuild.version_of(tmp_path, "a.b/c") == "v1.2.3"
    assert gobuild.version_of(tmp_path, "d.e/f") == "v0.1.0"
    with pytest.raises(ClusterError, match=r"go\.mod does not require a\.b/d"):
        gobuild.version_of(tmp_path, "a.b/d")


def test_the_pinned_version_is_a_release() -> None:
    assert kubernetes.version().count(".") == 2


def test_a_result_is_kept_for_what_it_was_built_from(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n")
    first = Recipe("x", "x", tmp_path, (".",), "-s")
    key = first.key()
    assert key == first.key()
    assert key != Recipe("x", "x", tmp_path, (".",), "-w").key()
    (tmp_path / "go.sum").write_text("")
    assert key != first.key()


def test_an_image_is_packed_as_docker_saves_it(tmp_path: Path) -> None:
    command = tmp_path / "probe"
    command.write_bytes(b"static")
    archives = tmp_path / "one.tar", tmp_path / "two.tar"
    for archive in archives:
        image.pack(command, "localhost/probe:1", archive)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert image.names_in(archives[0]) == ["localhost/probe:1"]
    with tarfile.open(archives[0]) as outer, tarfile.open(fileobj=outer.extractfile("layer.tar")) as layer:
        entry = layer.getmember("probe")
        assert (entry.mode, entry.size) == (0o755, 6)


def test_an_archive_without_names_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    with pytest.raises(ClusterError, match="is not a docker-archive"):
        image.names_in(empty)
