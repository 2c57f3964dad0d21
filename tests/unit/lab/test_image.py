"""The Dockerfile and the lab that builds it say the same."""

import re

from lab.cluster import folders
from lab.image import by_buildah, ingredients
from partwarden import __version__

DOCKERFILE = (folders.CHECKOUT / "Dockerfile").read_text()


def test_the_dockerfile_is_of_this_version() -> None:
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE


def test_what_is_made_without_a_registry_is_the_base_that_the_dockerfile_names() -> None:
    assert re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE) == [by_buildah.BASE]
    assert by_buildah.BASE.endswith(f":{by_buildah.SUITE}-slim")
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {*("${BASE}", "packages", "operator")}


def test_all_that_the_dockerfile_copies_from_the_checkout_changes_the_images_name() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, re.MULTILINE)
    known = [str(path.relative_to(folders.CHECKOUT)) for path in ingredients()]
    assert copied
    for path in copied:
        files = list((folders.CHECKOUT / path).rglob("*.py")) or [folders.CHECKOUT / path]
        assert {str(each.relative_to(folders.CHECKOUT)) for each in files} <= set(known)
    # What .dockerignore keeps out cannot be copied.
    let_in = [line[1:] for line in (folders.CHECKOUT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert all(any(path.startswith(each) for each in let_in) for path in copied)
