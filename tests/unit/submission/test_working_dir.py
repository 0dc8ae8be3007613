"""Which files a submitted job takes along."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from dfnas_ray.errors import ClusterError
from dfnas_ray.submission import working_dir as module
from dfnas_ray.submission.working_dir import WorkingDir


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch) -> Path:
    """A home without settings of git, so that those of whoever runs the tests do not count."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for name in [name for name in os.environ if name == "XDG_CONFIG_HOME" or name.startswith("GIT_CONFIG_GLOBAL")]:
        monkeypatch.delenv(name)
    return folder


@pytest.fixture
def write(tmp_path):
    """Return a function that writes files below the test's folder, each with its own name as content."""

    def files(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path

    return files


def sent(root: Path, *leave_out: Path) -> set[str]:
    """Names of what is sent, without the package that is added."""
    files = WorkingDir.collect(root, leave_out).files
    return {name for name in files if not name.startswith("dfnas_ray/")}


def test_what_gitignore_names_stays_here(write):
    root = write("a.yaml", "model.pt", "keep.pt", "data/x.png", "data/deep/y.png", "src/net.py", "src/out/z.txt")
    (root / ".gitignore").write_text("*.pt\n!keep.pt\n/data/\n")
    (root / "src" / ".gitignore").write_text("out/\n")
    assert sent(root) == {".gitignore", "a.yaml", "keep.pt", "src/.gitignore", "src/net.py"}


def test_a_gitignore_above_counts_up_to_the_root_of_the_repository(write):
    root = write("repo/sub/a.yaml", "repo/sub/secret.key", "repo/sub/b.log", "repo/.git/HEAD")
    (root / ".gitignore").write_text("*.yaml\n")  # outside of the repository
    (root / "repo" / ".gitignore").write_text("*.key\n*.log\n")
    (root / "repo" / "sub" / ".gitignore").write_text("!b.log\n")
    assert sent(root / "repo" / "sub") == {".gitignore", "a.yaml", "b.log"}


def test_a_file_that_git_tracks_although_it_is_ignored_stays_here(write):
    root = write("a.yaml", "big.pt")
    (root / ".gitignore").write_text("*.pt\n")
    git = ["git", "-C", str(root), "-c", "user.name=x", "-c", "user.email=x@y.z"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-f", "big.pt", "a.yaml"], check=True)
    assert sent(root) == {".gitignore", "a.yaml"}


def test_what_git_sends_is_a_superset(write):
    """git itself is the judge: nothing is sent that it ignores."""
    root = write(
        "a.py", "b/c.py", "b/d.log", "b/e/f.log", "b/e/keep.log", "x y/g.py", "h#.py", "i.tmp", "runs2/j", "k/l.o"
    )
    (root / ".gitignore").write_text("*.log\n!keep.log\n# comment\n\\#x\n*.tmp\nb/e/*\n!b/e/keep.log\nk/*\n")
    subprocess.run(["git", "-C", str(root), "init", "-q"], check=True)
    command = ["git", "-C", str(root), "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert sent(root) == set(listed.split("\0")) - {""}


@pytest.fixture(params=["git is asked", "git is not installed"])
def with_or_without_git(request, monkeypatch, tmp_path_factory):
    if request.param == "git is not installed":
        monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


@pytest.mark.parametrize("place", [".config/git/ignore", "xdg/git/ignore", "my.ignore"])
def test_what_the_user_ignores_everywhere_stays_here(write, home, monkeypatch, with_or_without_git, place):
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    (home / place).write_text("*.key\n/top.txt\n*.log\n")
    if place.startswith("xdg"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    if place == "my.ignore":
        (home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/my.ignore\n")
    root = write("a.yaml", "id.key", "b/id.key", "top.txt", "b/top.txt", "b/keep.log")
    (root / "b" / ".gitignore").write_text("!keep.log\n")  # a .gitignore counts more
    assert sent(root) == {"a.yaml", "b/top.txt", "b/.gitignore", "b/keep.log"}
    (root / ".git").mkdir()
    assert sent(root) == {"a.yaml", "b/top.txt", "b/.gitignore", "b/keep.log"}
    assert sent(root / "b") == {"top.txt", ".gitignore", "keep.log"}


def test_the_users_file_may_be_switched_off_or_named_by_an_included_setting(write, home):
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.key\n")
    (home / ".gitconfig").write_text("[include]\n\tpath = more\n")
    (home / "more").write_text('[core]\n\texcludesFile = ""\n')
    root = write("a.yaml", "id.key")
    assert sent(root) == {"a.yaml", "id.key"}
    (home / "more").write_text(f"[core]\n\texcludesFile = {home / 'mine'}\n")
    (home / "mine").write_text("*.yaml\n")
    assert sent(root) == {"id.key"}


def test_what_the_repository_excludes_stays_here_in_its_worktrees_and_submodules_too(write, with_or_without_git):
    root = write(
        "repo/.git/info/exclude", "repo/.git/worktrees/w/HEAD", "repo/.git/modules/s/info/exclude",
        "repo/a.yaml", "repo/id.key", "tree/a.yaml", "tree/id.key", "repo/s/a.yaml", "repo/s/id.pem",
    )  # fmt: skip
    (root / "repo/.git/info/exclude").write_text("*.key\n")
    (root / "repo/.git/worktrees/w/commondir").write_text("../..\n")
    (root / "tree/.git").write_text(f"gitdir: {root}/repo/.git/worktrees/w\n")
    (root / "repo/.git/modules/s/info/exclude").write_text("*.pem\n")
    (root / "repo/s/.git").write_text("gitdir: ../.git/modules/s\n")
    assert sent(root / "tree") == {"a.yaml"}
    assert sent(root / "repo") == {"a.yaml", "s/a.yaml"}


def test_git_agrees_about_a_worktree(write, home):
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.key\n")
    root = write("repo/a.yaml")
    git = ["git", "-C", str(root / "repo"), "-c", "user.name=x", "-c", "user.email=x@y.z"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["worktree", "add", "-q", str(root / "tree")]):
        subprocess.run([*git, *words], check=True)
    (root / "repo/.git/info/exclude").write_text("*.pem\n")
    write("tree/id.key", "tree/id.pem", "tree/new.py")
    listed = subprocess.run(
        ["git", "-C", str(root / "tree"), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert sent(root / "tree") == set(listed.split("\0")) - {""} == {"a.yaml", "new.py"}


def test_runs_environments_secrets_and_links_are_never_sent(write):
    root = write(
        "a.yaml", "runs/digits/report.html", "sub/runs/x/y", ".env", ".env.local", "venv/lib/x.py", "py/pyvenv.cfg",
        "py/lib/z.py", "pkg/__pycache__/m.pyc", "old/latest.json", "old/experiment.yaml", "old/weights", "mine/weights",
    )  # fmt: skip
    (root / "link.yaml").symlink_to(root / "a.yaml")
    (root / "links").symlink_to("/etc")
    assert sent(root, root / "mine") == {"a.yaml"}


def test_rayignore_leaves_out_what_git_keeps(write):
    root = write("a.yaml", "docs/movie.mp4")
    (root / ".rayignore").write_text("docs/\n")
    assert sent(root) == {".rayignore", "a.yaml"}


def test_the_package_goes_along_so_that_the_checked_code_is_what_runs(write):
    files = WorkingDir.collect(write("a.yaml")).files
    assert files["dfnas_ray/__main__.py"] == Path(module.dfnas_ray.__file__).parent / "__main__.py"
    assert [name for name in files if name.endswith(".html.j2")]
    assert not [name for name in files if "__pycache__" in name]


def test_a_checkout_of_the_package_is_sent_instead_of_the_installed_one(write):
    root = write("dfnas_ray/__init__.py", "dfnas_ray/mine.py")
    assert set(WorkingDir.collect(root).files) == {"dfnas_ray/__init__.py", "dfnas_ray/mine.py"}


def test_the_same_files_make_the_same_archive(write, tmp_path):
    root = write("in/a.yaml", "in/run.sh") / "in"
    (root / "run.sh").chmod(0o755)
    first = WorkingDir.collect(root).write(tmp_path / "1.zip").read_bytes()
    (root / "a.yaml").touch()
    archive = WorkingDir.collect(root).write(tmp_path / "2.zip")
    assert archive.read_bytes() == first
    with zipfile.ZipFile(archive) as opened:
        assert opened.read("a.yaml") == b"in/a.yaml"
        assert opened.getinfo("run.sh").external_attr >> 16 & 0o777 == 0o755


def test_a_folder_that_is_too_large_is_refused_by_its_largest_files(write, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    with pytest.raises(ClusterError, match=r"Largest: dfnas_ray/.* \(0 MiB\).*\.rayignore"):
        WorkingDir.collect(write("a.yaml")).write(tmp_path / "x.zip")


def test_holds_knows_files_and_folders(write):
    working_dir = WorkingDir.collect(write("data/test/a.png", "x.pt"))
    assert working_dir.holds(Path("x.pt"))
    assert working_dir.holds(Path("./data/test"))
    assert not working_dir.holds(Path("data/te"))
    assert not working_dir.holds(Path("../x.pt"))
