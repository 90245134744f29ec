"""scripts/release.py: a tree is released only if every place that has the version agrees."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)


def git(root, *words):
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], cwd=root, check=True)


@pytest.fixture
def tree(tmp_path):
    """A copy of what has the version, as a repository, made ready to be released as 9.8.7."""
    for name in (*release.PLACES, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    git(tmp_path, "init", "--quiet")
    release.set_version(tmp_path, "9.8.7", "2030-01-02")
    commit(tmp_path)
    git(tmp_path, "tag", "v9.8.7")
    return tmp_path


def commit(root):
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "x")


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_versions_of_this_tree_agree():
    assert [problem for problem in release.problems(ROOT) if "the version is" in problem] == []


def test_a_tree_that_is_ready(tree):
    assert release.problems(tree) == []
    assert "## [Unreleased]\n\n## [9.8.7] - 2030-01-02\n" in (tree / "CHANGELOG.md").read_text()
    assert (tree / "Cargo.lock").read_text().count('"9.8.7"') == 3


def test_setting_the_version_twice_changes_nothing(tree):
    release.set_version(tree, "9.8.7", "2030-01-03")
    assert release.problems(tree) == []


@pytest.mark.parametrize("name", [name for name in release.PLACES if name != "pyproject.toml"])
def test_one_place_that_differs_is_named(tree, name):
    change(tree / name, '"9.8.7"', '"9.8.6"')
    commit(tree)
    git(tree, "tag", "--force", "v9.8.7")
    (problem,) = release.problems(tree)
    assert problem.startswith(f"{name}: ")
    assert "9.8.6" in problem


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[9.8.7] - 2030-01-02", "[9.8.7] - unreleased", "the newest section"),
        ("[9.8.7] - 2030-01-02", "[9.8.6] - 2030-01-02", "the newest section"),
        ("[Unreleased]\n", "[Unreleased]\n\n### Added\n\n- x\n", "Unreleased"),
    ],
)
def test_a_changelog_that_is_not_ready(tree, old, new, said):
    change(tree / "CHANGELOG.md", old, new)
    commit(tree)
    git(tree, "tag", "--force", "v9.8.7")
    (problem,) = release.problems(tree)
    assert problem.startswith("CHANGELOG.md: ")
    assert said in problem


def test_a_commit_without_the_tag_and_a_dirty_tree(tree):
    change(tree / "CHANGELOG.md", "2030", "2031")
    assert release.problems(tree) == ["git: the work tree has changes that are not committed"]
    commit(tree)
    assert release.problems(tree) == ["git: HEAD has no tag v9.8.7"]


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.3rc1", "1.2.3 "])
def test_what_is_no_version(tree, version):
    with pytest.raises(SystemExit, match="a version is like"):
        release.set_version(tree, version, "2030-01-02")
