"""What is published: the chart's annotations are true, versions agree, and the workflows name what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

import release
from partwarden import __version__
from partwarden.api.archive import PartitionArchiveSpec
from partwarden.api.policy import PartitionPolicySpec
from partwarden.api.restore import PartitionRestoreSpec
from partwarden.api.validation import check

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "partwarden"
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())
ANNOTATIONS = {name.removeprefix("artifacthub.io/"): text for name, text in ABOUT["annotations"].items()}
LISTS = {name: yaml.safe_load(text) for name, text in ANNOTATIONS.items()}
SPECS: dict[str, type[BaseModel]] = {
    "PartitionPolicy": PartitionPolicySpec,
    "PartitionArchive": PartitionArchiveSpec,
    "PartitionRestore": PartitionRestoreSpec,
}
WORKFLOWS = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").iterdir()}
JOBS = {
    f"{file}: {name}": job for file, text in WORKFLOWS.items() for name, job in yaml.safe_load(text)["jobs"].items()
}
SOURCE = "https://git.example.com/owner/partwarden"


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a job; none where it calls a workflow."""
    return list(job.get("steps", []))


@pytest.mark.slow
def test_the_annotations_are_those_that_the_checkout_makes() -> None:
    made = release.artifacthub(release.default_image())
    assert ABOUT["annotations"] == made, "run: .venv/bin/python charts/release.py annotate"


def test_the_image_has_no_repository_before_a_release() -> None:
    image = yaml.safe_load((CHART / "values.yaml").read_text())["image"]
    assert image["repository"] == ""
    small = f"partwarden:{image['tag'] or __version__}"
    assert [each["image"] for each in LISTS["images"]] == [small, f"{small}-parquet"]


@pytest.mark.slow
def test_every_crd_is_listed_as_it_is() -> None:
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").iterdir()]
    listed = {(each["name"], each["kind"], each["version"]) for each in LISTS["crds"]}
    assert listed == {
        (each["metadata"]["name"], each["spec"]["names"]["kind"], version["name"])
        for each in files
        for version in each["spec"]["versions"]
    }


def test_every_crd_has_an_example() -> None:
    assert {each["kind"] for each in LISTS["crdsExamples"]} == {each["kind"] for each in LISTS["crds"]}


@pytest.mark.parametrize("example", LISTS["crdsExamples"], ids=lambda example: str(example["kind"]))
def test_every_example_is_valid(example: dict[str, Any]) -> None:
    assert example["apiVersion"] == "partwarden.dev/v1alpha1"
    assert check(SPECS[example["kind"]], example["spec"])[1] == []


def test_the_changes_are_those_of_the_changelog() -> None:
    newest = (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1]
    assert newest.startswith(f"{ABOUT['version']} ")
    assert len(LISTS["changes"]) == len(re.findall(r"^- ", newest, re.MULTILINE))
    assert " ".join(LISTS["changes"]).split() == [word for word in newest.split()[2:] if word != "-"]


def test_the_licence_is_that_of_the_package() -> None:
    assert f'license = "{ANNOTATIONS["license"]}"' in (ROOT / "pyproject.toml").read_text()


def test_versions_that_differ_from_the_tag_are_named() -> None:
    assert len(release.mismatches("v99.0.0")) >= 5
    assert not [line for line in release.mismatches(f"v{__version__}") if "must be" in line]


def test_a_version_without_a_date_is_not_released(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in ("charts/partwarden/Chart.yaml", "Dockerfile", "CHANGELOG.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
    monkeypatch.setattr(release, "ROOT", tmp_path)
    log = tmp_path / "CHANGELOG.md"
    for date, code in (("unreleased", 1), ("2026-12-01", 0)):
        log.write_text(re.sub(r"^## (\S+) \(.*\)$", rf"## \1 ({date})", log.read_text(), flags=re.MULTILINE))
        done = CliRunner().invoke(release.main, ["check", f"v{__version__}"])
        assert done.exit_code == code, done.output


@pytest.mark.slow
def test_the_copy_of_a_release_has_its_addresses(tmp_path: Path) -> None:
    image = "registry.example.com/owner/partwarden"
    arguments = ["copy", str(tmp_path / "partwarden"), "--image", image, "--source", SOURCE]
    done = CliRunner().invoke(release.main, arguments)
    assert done.exit_code == 0, done.output
    about = yaml.safe_load((tmp_path / "partwarden" / "Chart.yaml").read_text())
    assert (about["home"], about["sources"]) == (SOURCE, [SOURCE])
    listed = {name: yaml.safe_load(text) for name, text in about["annotations"].items()}
    both = [f"{image}:{__version__}", f"{image}:{__version__}-parquet"]
    assert [each["image"] for each in listed["artifacthub.io/images"]] == both
    pages = [each["url"] for each in listed["artifacthub.io/links"] if each["url"].startswith(SOURCE)]
    assert pages
    for page in pages:
        assert (ROOT / page.removeprefix(f"{SOURCE}/blob/v{__version__}/")).is_file()
    values = yaml.safe_load((tmp_path / "partwarden" / "values.yaml").read_text())
    assert values.pop("image") == {
        **{"repository": image, "tag": "", "variant": "", "digest": ""},
        "pullPolicy": "IfNotPresent",
    }
    assert {**values, "image": {}} == {**yaml.safe_load((CHART / "values.yaml").read_text()), "image": {}}
    others = {path.relative_to(CHART) for path in CHART.rglob("*") if path.is_file()}
    for path in others - {Path("Chart.yaml"), Path("values.yaml")}:
        assert (tmp_path / "partwarden" / path).read_bytes() == (CHART / path).read_bytes()


@pytest.mark.parametrize("file", sorted(WORKFLOWS))
def test_every_action_is_pinned_by_its_commit_with_its_version_beside_it(file: str) -> None:
    used = re.findall(r"^.*\buses: (.*)$", WORKFLOWS[file], re.MULTILINE)
    assert used
    for each in used:
        if each.startswith("./"):
            assert (ROOT / each).is_file()
        else:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


@pytest.mark.parametrize("file", sorted(WORKFLOWS))
def test_no_job_has_rights_that_it_does_not_ask_for(file: str) -> None:
    whole = yaml.safe_load(WORKFLOWS[file])
    assert whole["permissions"] in ({}, {"contents": "read"})


def test_only_the_jobs_that_publish_may_write_or_sign() -> None:
    writing = {name for name, job in JOBS.items() if "write" in job.get("permissions", {}).values()}
    assert writing == {f"release.yml: {name}" for name in ("image", "chart", "pypi")}
    for name in writing:
        assert JOBS[name]["permissions"]["id-token"] == "write"
        assert JOBS[name]["permissions"].get("contents", "read") == "read"


def test_nothing_is_published_before_the_tests_have_passed() -> None:
    jobs = {name.removeprefix("release.yml: "): job for name, job in JOBS.items() if name.startswith("release.yml")}

    def before(name: str) -> set[str]:
        needed = jobs[name].get("needs", [])
        return {name, *(each for need in needed for each in before(need))}

    for name in ("image", "chart", "pypi"):
        assert before(name) >= {"test", "build"}


def test_ci_runs_the_whole_suite_and_keeps_the_parts_of_the_lab() -> None:
    (tests,) = [step for step in steps(JOBS["ci.yml: test"]) if step.get("run") == "make test"]
    # Nothing narrows it: once a week it is widened.
    assert tests["env"] == {"PG_MAJORS": "${{ github.event_name == 'schedule' && 'every' || '' }}"}
    assert "~/.cache/partwarden/*" in WORKFLOWS["ci.yml"]


def test_both_images_are_built_for_the_platforms_that_the_chart_names_and_signed() -> None:
    builds = [step["with"] for step in steps(JOBS["release.yml: image"]) if "build-push" in step.get("uses", "")]
    assert [build.get("target", "") for build in builds] == [suffix[1:] for suffix in release.VARIANTS]
    for build, suffix, listed in zip(builds, release.VARIANTS, LISTS["images"], strict=True):
        assert build["platforms"].split(",") == listed["platforms"]
        assert build["sbom"] is True
        assert build["provenance"] == "mode=max"
        name = "${{ needs.build.outputs.image }}:${{ needs.build.outputs.version }}"
        assert build["tags"] == f"{name}{suffix}"
    (sign,) = [step for step in steps(JOBS["release.yml: image"]) if "cosign sign" in step.get("run", "")]
    assert all(f"${each}" in sign["run"] for each in ("SMALL", "PARQUET"))


def test_scripts_of_the_workflows_take_values_from_the_environment_only() -> None:
    """A name of a branch or a tag would otherwise be part of the script."""
    for name, job in JOBS.items():
        for step in steps(job):
            assert "${{" not in step.get("run", ""), name
