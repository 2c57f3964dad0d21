"""The chart as it is published: what Artifact Hub shows of it, and a copy with the addresses of a release.

    .venv/bin/python charts/release.py annotate      after a change of CHANGELOG.md, crds/, examples/ or the image
    .venv/bin/python charts/release.py check v0.1.0  whether every version in the checkout is that of the tag
    .venv/bin/python charts/release.py copy FOLDER --image IMAGE --source URL

The release workflow runs the last two. The annotations are described in
https://artifacthub.io/docs/topics/annotations/helm
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import click
import yaml

from partwarden import __version__

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "partwarden"
EXAMPLES = ("run.yaml", "archive.yaml", "partition-restore.yaml")
"""In examples/, one for each CustomResourceDefinition."""
VARIANTS = ("", "-parquet")
"""What the tags of the published images end in."""
PLATFORMS = ["linux/amd64", "linux/arm64"]
POSTGRESQL = {
    "name": "PostgreSQL: table partitioning",
    "url": "https://www.postgresql.org/docs/current/ddl-partitioning.html",
}
PAGES = {"Documentation": "README.md", "Changes": "CHANGELOG.md", "Security": "SECURITY.md"}
"""Linked where the address of the repository is known."""


class _Text(str):
    """Written as a literal block."""


class _Dumper(yaml.SafeDumper):
    """Keeps the blocks of texts."""


_Dumper.add_representer(_Text, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def dump(value: object) -> str:
    """YAML in the order given, in lines that fit into Chart.yaml."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def artifacthub(image: str, source: str = "") -> dict[str, str]:
    """What Artifact Hub reads. `image` has a tag; `source` is the repository's address, where it is known."""
    pages = [{"name": name, "url": f"{source}/blob/v{__version__}/{path}"} for name, path in PAGES.items()]
    lists = {
        "images": [
            {"name": f"partwarden{suffix}", "image": f"{image}{suffix}", "platforms": PLATFORMS} for suffix in VARIANTS
        ],
        "crds": [_crd(yaml.safe_load(path.read_text())) for path in sorted((ROOT / "crds").iterdir())],
        "crdsExamples": [yaml.safe_load((ROOT / "examples" / name).read_text()) for name in EXAMPLES],
        "links": [*(pages if source else []), POSTGRESQL],
        "changes": changes((ROOT / "CHANGELOG.md").read_text()),
    }
    words = {"category": "database", "license": "Apache-2.0", "operator": "true"}
    return {f"artifacthub.io/{name}": text for name, text in words.items()} | {
        f"artifacthub.io/{name}": _Text(dump(value)) for name, value in lists.items()
    }


def _crd(definition: dict[str, Any]) -> dict[str, str]:
    (version,) = definition["spec"]["versions"]
    kind = definition["spec"]["names"]["kind"]
    return {
        "kind": kind,
        "version": version["name"],
        "name": definition["metadata"]["name"],
        "displayName": kind,
        "description": version["schema"]["openAPIV3Schema"]["description"],
    }


def changes(changelog: str) -> list[str]:
    """The items of the newest version, each in one line."""
    newest = changelog.split("\n## ")[1]
    return [" ".join(item.split()) for item in newest.split("\n- ")[1:]]


def default_image(repository: str = "") -> str:
    """The image that the chart is released with, in the repository that is given."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())["image"]
    return f"{repository or 'partwarden'}:{values['tag'] or __version__}"


def annotated(text: str, added: dict[str, str]) -> str:
    """The text of a Chart.yaml, in which `annotations` come last, with these."""
    return text.partition("\nannotations:")[0] + "\n" + dump({"annotations": added})


def mismatches(tag: str) -> list[str]:
    """What in the checkout does not fit a release of this tag; empty when all does."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    found = {
        "operator/partwarden/__init__.py": __version__,
        "version in charts/partwarden/Chart.yaml": about["version"],
        "appVersion in charts/partwarden/Chart.yaml": about["appVersion"],
        "ARG VERSION in Dockerfile": _first(r"^ARG VERSION=(\S+)$", ROOT / "Dockerfile"),
        "newest version in CHANGELOG.md": _first(r"^## (\S+) ", ROOT / "CHANGELOG.md"),
    }
    wrong = [f"{where}: must be {tag.removeprefix('v')}, found {it}" for where, it in found.items() if f"v{it}" != tag]
    date = _first(r"^## \S+ \((.*)\)$", ROOT / "CHANGELOG.md")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        wrong.append(f"newest version in CHANGELOG.md: needs the date of its release, found ({date})")
    return wrong


def _first(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    return found.group(1) if found else "none"


@click.group()
def main() -> None:
    """Keep and publish the chart."""


@main.command()
def annotate() -> None:
    """Write the annotations of the checkout into charts/partwarden/Chart.yaml."""
    file = CHART / "Chart.yaml"
    file.write_text(annotated(file.read_text(), artifacthub(default_image())))


@main.command()
@click.argument("tag")
def check(tag: str) -> None:
    """Exit with 1 where a version in the checkout is not that of TAG."""
    if wrong := mismatches(tag):
        raise click.ClickException("\n".join([f"cannot release {tag}; correct these first:", *wrong]))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--image", required=True, help="Repository of the image, such as ghcr.io/owner/partwarden.")
@click.option("--source", required=True, help="Address of the repository with the source.")
def copy(folder: Path, image: str, source: str) -> None:
    """Copy the chart to FOLDER, with these addresses."""
    shutil.copytree(CHART, folder)
    values = folder / "values.yaml"
    text, count = re.subn(r'^  repository: ""$', f"  repository: {image}", values.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise click.ClickException(f'cannot name the image in {values}: it has {count} lines `  repository: ""`')
    values.write_text(text)
    about = folder / "Chart.yaml"
    named = annotated(about.read_text(), artifacthub(default_image(image), source))
    about.write_text(named.replace("\nannotations:", f"\nhome: {source}\nsources: [{source}]\nannotations:", 1))


if __name__ == "__main__":
    main()
