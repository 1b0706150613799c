"""What stands around the code: workflows name sessions that exist, versions and classifiers say one thing."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
YAML = [*sorted(ROOT.glob(".github/**/*.yml")), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"]
PROJECTS = {file.parent.name: tomllib.loads(file.read_text())["project"] for file in
            ROOT.glob("packages/*/pyproject.toml")}  # fmt: skip


def load(path: Path):
    """A file as YAML 1.1 reads it, where the key `on` is True."""
    return yaml.safe_load(path.read_text())


def sessions() -> set[str]:
    return set(re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE))


def asked_for(text: str) -> set[str]:
    """Sessions that a shell text runs by `nox -s`."""
    found = re.findall(r"nox -s ((?:[a-z]+\s?)+)", text)
    return {word for each in found for word in each.split()}


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_a_file_parses(path):
    assert isinstance(load(path), dict)


@pytest.mark.parametrize("path", [path for path in YAML if path.parent.name == "workflows"], ids=lambda path: path.name)
def test_a_workflow_runs_what_exists(path):
    flow = load(path)
    assert flow["name"] == path.stem and flow[True] and flow["permissions"] == {"contents": "read"}
    for job in flow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        lines = [step.get("run", "") for step in job["steps"]]
        named = " ".join(each.split(" -- ")[0] for each in matrix.get("session", ()))
        text = "\n".join(lines).replace("${{ matrix.session }}", named)
        assert asked_for(text) <= sessions(), asked_for(text) - sessions()
        for script in re.findall(r"\b(tools/\S+\.py)", text):
            assert (ROOT / script).is_file(), script
        assert all("uses" in step or step["run"] for step in job["steps"])


def test_the_nightly_workflow_runs_what_the_nightly_session_does():
    body = (ROOT / "noxfile.py").read_text().partition("def nightly(")[2].partition("@nox.session")[0]
    listed = body.partition("for name in (")[2].partition(")")[0]
    told = {*re.findall(r'notify\("(\w+)"', body), *re.findall(r'"(\w+)"', listed)}
    matrix = load(ROOT / ".github/workflows/nightly.yml")["jobs"]["nightly"]["strategy"]["matrix"]
    assert {each.split(" -- ")[0] for each in matrix["session"]} == told > {"slow", "gpu", "fuzz"}


def test_every_session_is_named_somewhere_that_runs_or_tells():
    places = [*ROOT.glob(".github/workflows/*.yml"), ROOT / ".ci/run", ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
    text = "\n".join(path.read_text() for path in places)
    assert [name for name in sorted(sessions()) if not re.search(rf"\b{name}\b", text)] == []


def test_the_workflow_tests_every_python_that_packages_declare():
    matrix = load(ROOT / ".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert {"tests", "oldest"} <= {*matrix["session"]}
    for project in PROJECTS.values():
        declared = [row.rpartition(" ")[2] for row in project["classifiers"] if re.search(r":: 3\.\d+$", row)]
        assert declared == matrix["python"]
        assert project["requires-python"] == f">={declared[0]}"


def test_pre_commit_has_the_formatter_of_the_lint_session():
    hooks = load(ROOT / ".pre-commit-config.yaml")
    rows = hooks["repos"]
    stages = {stage for row in rows for hook in row["hooks"] for stage in hook.get("stages", ())}
    assert stages <= {*hooks["default_install_hook_types"]}, "`pre-commit install` leaves hooks out"
    ruff = next(row["rev"] for row in rows if "ruff" in row["repo"])
    assert f'"ruff=={ruff.removeprefix("v")}"' in (ROOT / "noxfile.py").read_text()
    for row in rows:
        for hook in row["hooks"]:
            for script in re.findall(r"tools/\S+\.py", hook.get("entry", "")):
                assert (ROOT / script).is_file()


def test_the_citation_is_of_the_version_there_is():
    told = load(ROOT / "CITATION.cff")
    assert told["version"] == PROJECTS["imgzoo"]["version"] and told["license"] == PROJECTS["imgzoo"]["license"]
    assert told["repository-code"] == PROJECTS["imgzoo"]["urls"]["Source"]


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools/release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PROJECTS)
def test_a_tag_releases_its_distribution(release, name):
    project = PROJECTS[name]
    assert release.package_of(f"{project['name']}-v{project['version']}").name == name


@pytest.mark.parametrize(
    ("tag", "said"),
    [("v0.1.0", "no tag"), ("imgzoo-data-v9.9.9", "not the version"), ("imgzoo-nothing-v0.1.0", "no distribution")],
)
def test_a_tag_that_does_not_fit_is_refused(release, tag, said):
    with pytest.raises(SystemExit, match=said):
        release.package_of(tag)


def test_the_tags_of_the_workflow_are_those_of_releases():
    patterns = load(ROOT / ".github/workflows/release.yml")[True]["push"]["tags"]
    for project in PROJECTS.values():
        assert any(fnmatchcase(f"{project['name']}-v{project['version']}", pattern) for pattern in patterns)


def test_the_usual_set_is_every_distribution_without_code_of_its_own():
    meta = PROJECTS["imgzoo"]
    names = {re.match(r"[a-z-]+", need)[0] for need in [*meta["dependencies"], *meta["optional-dependencies"]["timm"]]}
    assert names == {project["name"] for project in PROJECTS.values()} - {"imgzoo"}
    assert not [*(ROOT / "packages/imgzoo").rglob("*.py")]


def test_every_license_file_is_the_repositorys():
    text = (ROOT / "LICENSE").read_text()
    assert all((ROOT / "packages" / name / "LICENSE").read_text() == text for name in PROJECTS)


def test_the_site_is_built_so_that_a_broken_link_fails():
    """Strict mode counts what is logged: with `--quiet` a warning is never counted."""
    text = (ROOT / "noxfile.py").read_text()
    command = re.search(r'session\.run\(python, "-m", "mkdocs"(.*)\)', text)[1]
    assert "--strict" in command and "quiet" not in command
    assert {*load_site()["validation"].values()} == {"warn"}
    assert "docs" in asked_for((ROOT / ".ci/run").read_text())


@pytest.mark.parametrize("name", PROJECTS)
def test_links_of_a_readme_work_where_the_package_is_published(name):
    """The package index shows it alone: a link to a file beside it leads nowhere."""
    text = (ROOT / "packages" / name / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_a_weakness_has_an_address():
    """The code of conduct sends to it too."""
    links = load(ROOT / ".github/ISSUE_TEMPLATE/config.yml")["contact_links"]
    assert f"<{links[0]['url']}>" in (ROOT / "SECURITY.md").read_text()


def load_site():
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def test_every_page_has_a_place_in_the_site():
    def pages(node):
        if isinstance(node, str):
            yield node
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from pages(each)

    placed = {*pages(load_site()["nav"])} | {"families.md", "layers.md"}
    assert {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")} <= placed


BRITISH = re.compile(
    r"\b(licence|catalogue|colour|behaviour|neighbour|favour|centre|grey|(?:un|re|mis)?labell|modell|travell"
    r"|[a-z]{3,}(?:alis|imis|aris|eris)(?:e[sd]?|ing|ation))\w*",
    re.IGNORECASE,
)


WRITTEN = {".py", ".md", ".c", ".toml", ".yml", ".cff", ".js", ".html", ".css"}


def test_spelling_is_american():
    listed = subprocess.run(
        ("git", "ls-files"), cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    texts = [ROOT / name for name in listed if Path(name).suffix in WRITTEN]
    found = {}
    for path in texts:
        if path.exists() and path != Path(__file__):
            for match in BRITISH.finditer(path.read_text(errors="replace")):
                found.setdefault(match[0].lower(), path.relative_to(ROOT).as_posix())
    assert found == {}
