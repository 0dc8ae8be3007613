"""Which files a submitted job takes along."""

import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from dfnas_ray.errors import ClusterError, ConfigError
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


def sent(root: Path, *leave_out: Path, named=(), include=()) -> set[str]:
    """Names of what is sent, without the package that is added."""
    files = WorkingDir.collect(root, map(Path, named), include, leave_out).files
    return {name for name in files if not name.startswith("dfnas_ray/")}


def git(folder: Path, *words: str) -> None:
    """Call git as somebody."""
    identity = ["-c", "user.name=x", "-c", "user.email=x@y.z", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def commit(folder: Path) -> None:
    """Make the folder a repository that tracks all that is in it."""
    git(folder, "init", "-q")
    git(folder, "add", "--force", ".")
    git(folder, "commit", "-qm", "x")


@pytest.fixture
def no_git(monkeypatch, tmp_path_factory):
    """A machine on which git is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


def test_in_a_checkout_what_git_tracks_is_sent(write):
    root = write("a.yaml", "net.py", "data/x y.csv", "big.pt")
    (root / ".gitignore").write_text("*.pt\n\\\n")
    commit(root)
    write("later.py", "later.csv")
    (root / "net.py").unlink()
    assert sent(root) == {"a.yaml", "data/x y.csv", "big.pt"}
    assert sent(root / "data") == {"x y.csv"}


def test_elsewhere_python_sources_are_sent_and_what_the_settings_name(write):
    root = write(
        "a.yaml", "net.py", "pkg/deep/m.py", "x.csv", "pkg/y.txt", "images/0/a.png", "images/0/b.png", "other/c.png"
    )
    assert sent(root) == {"net.py", "pkg/deep/m.py"}
    named = ("a.yaml", "./images/../images", "nowhere.pt")
    assert sent(root, named=named) == {"net.py", "pkg/deep/m.py", "a.yaml", "images/0/a.png", "images/0/b.png"}


def test_what_the_settings_name_is_sent_although_git_does_not_track_it(write):
    root = write("net.py", ".gitignore")
    (root / ".gitignore").write_text("*.pt\nimages/\n")
    commit(root)
    write("a.yaml", "x.pt", "images/0/a.png", "y.pt")
    assert sent(root, named=("a.yaml", "x.pt", "images")) == {"net.py", "a.yaml", "x.pt", "images/0/a.png"}


def test_a_path_that_no_machine_has_is_passed_over(write):
    root = write("a.py")
    assert sent(root, named=("a\0b", "\ud800", "../a.py", "/etc/hostname")) == {"a.py"}


def test_patterns_bring_further_files(write):
    root = write("a.py", "data/x.csv", "data/deep/y.csv", "data/z.txt", "odd[1].json", "odd1.json")
    assert sent(root, include=["data/*.csv", "odd[1].json"]) == {"a.py", "data/x.csv", "odd[1].json"}
    assert sent(root, include=["data"]) == {"a.py", "data/x.csv", "data/deep/y.csv", "data/z.txt"}
    assert sent(root, include=["*.csv"]) == {"a.py", "data/x.csv", "data/deep/y.csv"}


@pytest.mark.parametrize(
    "pattern", ["*.cvs", "../*", "/etc/hostname", "../up.txt", "\\", "!*", ".env*", ".ssh", "link.txt", ""]
)
def test_a_pattern_that_brings_nothing_is_refused(write, pattern):
    root = write("in/a.py", "in/.env", "in/.ssh/id", "up.txt") / "in"
    (root / "link.txt").symlink_to(root.parent / "up.txt")
    with pytest.raises(ConfigError, match=f"--include .*relative to {root}"):
        sent(root, include=[pattern])


def test_a_hidden_file_or_a_credential_is_sent_if_its_very_path_is_named(write):
    root = write("a.py", ".env", "conf/.hidden", "conf/id.key", "conf/other.key")
    assert sent(root, named=["conf", ".env"]) == {"a.py"}
    assert sent(root, include=[".env", "./conf/.hidden", "conf/id.key"]) == {
        "a.py",
        ".env",
        "conf/.hidden",
        "conf/id.key",
    }


CREDENTIAL_FILES = """
.aws/credentials .aws/config .ssh/id_ed25519 .ssh/id_rsa .ssh/config .netrc _netrc .git-credentials
.config/git/credentials .npmrc .yarnrc.yml .pypirc .config/pip/pip.conf .envrc .env .env.production prod.env
settings.env.local .kaggle/kaggle.json kaggle.json .kaggle.json key.pem server.key cert.p12 cert.pfx store.jks
release.keystore putty.ppk passwords.kdbx kubeconfig .kube/config kubeconfig.yaml secrets.yaml secrets.yml
conf/secrets.toml secret.json service-account.json my-service-account-prod.json service_account.json credentials
credentials.json app/google_credentials.yaml token.txt hf_token token api.token .docker/config.json .dockercfg .pgpass
pgpass.conf .my.cnf .mylogin.cnf .s3cfg .boto .config/rclone/rclone.conf rclone.conf .huggingface/token
.cache/huggingface/token .config/wandb/settings terraform.tfstate terraform.tfstate.backup prod.tfvars
prod.auto.tfvars .terraformrc .terraform.d/credentials.tfrc.json .vault-token
.config/gcloud/application_default_credentials.json gcloud/credentials.db application_default_credentials.json
.azure/accessTokens.json accessTokens.json azureProfile.json group_vars/all/vault.yml .vault_pass vault_pass.txt
.htpasswd htpasswd .config/gh/hosts.yml .config/hub .gnupg/secring.gpg secring.gpg id_rsa id_dsa deploy/id_ecdsa
deploy/id_ed25519 deploy_rsa ssh_host_rsa_key client_secret_123.json firebase-adminsdk-x.json gcp-key.json
.databrickscfg .snowflake/connections.toml .streamlit/secrets.toml .jupyter/jupyter_server_config.json clouds.yaml
admin-openrc.sh API_KEY.txt Credentials.JSON SECRETS.YAML local_settings.py my_secrets.py .m2/settings.xml
.gradle/gradle.properties krb5cc_1000 me.keytab vpn.ovpn login.keychain-db cookies.txt wallet.dat
dotfiles/aws/credentials dotfiles/ssh/config dotfiles/kube/config
"""


@pytest.mark.parametrize("with_git", [False, True])
def test_of_a_home_full_of_credentials_none_is_sent_and_the_experiment_is(write, with_git):
    secret = CREDENTIAL_FILES.split()
    root = write("lab/net.py", "lab/tokenizer.py", "lab/tokenizer.json", "lab/keyboard.py", "lab/monkey.csv", *secret)
    write("experiments/a.yaml")
    if with_git:
        commit(root)
    files = sent(root, named=["experiments/a.yaml", "lab", *secret], include=["*.json", "*.p*", "lab/*"])
    assert files >= {"experiments/a.yaml", "lab/net.py", "lab/tokenizer.py", "lab/tokenizer.json", "lab/keyboard.py"}
    assert files & set(secret) == set()
    assert sent(root, include=["*"]) & set(secret) == set()
    assert sent(root, include=secret[:7]) & set(secret) == set(secret[:7])


def test_credentials_that_git_tracks_are_named(write):
    root = write("a.py", "b.key", "c.key", "d.key", "e.key", ".env")
    commit(root)
    (note,) = WorkingDir.collect(root).notes
    assert note.startswith("Not sent: b.key, c.key, d.key and 1 more (its name is typical of credentials; --include")


def test_the_package_itself_has_no_name_of_credentials():
    package = Path(module.dfnas_ray.__file__).parent
    every = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    files = WorkingDir.collect(Path(__file__).parent).files
    assert {name for name in every if "__pycache__" not in name} == {n for n in files if n.startswith("dfnas_ray/")}


def test_a_checkout_without_git_is_a_folder_without_git_and_says_so(write, request):
    root = write("a.py", "x.csv")
    commit(root)
    request.getfixturevalue("no_git")
    working_dir = WorkingDir.collect(root)
    assert "x.csv" not in working_dir.files
    assert "a.py" in working_dir.files
    assert working_dir.notes == (
        f"{root} is in a git checkout, but git is not installed: Python sources are sent instead.",
    )


def test_a_repository_that_git_cannot_read_is_a_folder_without_git(write):
    root = write("a.py", "x.csv", ".git/HEAD")
    (note,) = WorkingDir.collect(root).notes
    assert re.search(r"git cannot list it \(fatal: .*\): Python sources", note)
    assert sent(root) == {"a.py"}


def test_where_git_tracks_nothing_python_sources_are_sent(write):
    root = write("new/a.py", "new/x.csv")
    git(root, "init", "-q")
    assert sent(root / "new") == {"a.py"}
    assert "git tracks no file there" in WorkingDir.collect(root / "new").notes[0]


def test_git_looks_here_also_where_a_hook_names_another_place(write, monkeypatch):
    root = write("one/a.py", "two/b.csv")
    commit(root / "one")
    commit(root / "two")
    monkeypatch.setenv("GIT_DIR", str(root / "one/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(root / "one/.git/index"))
    assert sent(root / "two") == {"b.csv"}


def test_a_repository_starts_no_program(write):
    root = write("a.csv")
    commit(root)
    (root / "hook.sh").write_text(f"#!/bin/sh\ntouch {root}/started\n")
    (root / "hook.sh").chmod(0o755)
    git(root, "config", "core.fsmonitor", str(root / "hook.sh"))
    assert sent(root) == {"a.csv"}
    assert not (root / "started").exists()


def test_worktrees_and_submodules_bring_what_git_tracks_in_them(write):
    root = write("lib/m.csv", "repo/a.csv")
    commit(root / "lib")
    commit(root / "repo")
    git(root / "repo", "submodule", "add", "-q", str(root / "lib"), "lib")
    git(root / "repo", "commit", "-qm", "y")
    git(root / "repo", "worktree", "add", "-q", str(root / "tree"))
    write("repo/lib/new.csv", "tree/new.csv")
    assert sent(root / "repo") == {"a.csv", "lib/m.csv"}
    assert sent(root / "repo/lib") == {"m.csv"}
    assert sent(root / "tree") == {"a.csv"}


@pytest.mark.parametrize("with_git", [False, True])
def test_runs_environments_and_links_are_never_sent(write, with_git):
    root = write(
        "a.py", "runs/digits/report.py", "sub/runs/x/y.py", "venv/lib/x.py", "py/pyvenv.cfg", "py/lib/z.py",
        "pkg/__pycache__/m.py", "old/latest.json", "old/experiment.yaml", "old/weights.py", "mine/weights.py", "far/b.py",
        "step/latest.json", "step/.lock", "step/weights.py",
    )  # fmt: skip
    (root / "link.py").symlink_to(root / "a.py")
    (root / "gone.py").symlink_to(root / "nowhere")
    (root / "loop.py").symlink_to(root / "loop.py")
    (root / "links").symlink_to("/etc")
    if with_git:
        commit(root)
        (root / "far").rename(root / "mine/far")
        (root / "far").symlink_to(root / "mine/far")  # git still tracks far/b.py
    every = {"a.py"} if with_git else {"a.py", "far/b.py"}
    assert sent(root, root / "mine") == every
    assert sent(root, root / "mine", named=["link.py", "links", "loop.py", "old", "runs/digits"]) == every
    assert sent(root, root / "mine", include=["*"]) == every


def test_a_name_that_is_not_utf8_is_named_in_one_error(write):
    root = write("a.py", "odd/a.csv")
    (root / "odd" / os.fsdecode(b"caf\xe9.csv")).touch()
    assert sent(root) == {"a.py"}
    with pytest.raises(ConfigError, match=r"names are not UTF-8: 'odd/caf\\udce9\.csv'"):
        sent(root, named=["odd"])
    commit(root)
    with pytest.raises(ConfigError, match=r"caf\\udce9\.csv"):
        sent(root)
    (root / ".rayignore").write_text("odd\n\\\n")
    assert sent(root) == {"a.py"}


def test_what_is_not_a_file_is_not_sent(write):
    root = write("a.py")
    os.mkfifo(root / "pipe.py")
    assert sent(root, named=["pipe.py"]) == {"a.py"}


def test_a_file_that_cannot_be_read_is_one_error(write, tmp_path):
    root = write("a.py")
    working_dir = WorkingDir.collect(root)
    (root / "a.py").unlink()
    with pytest.raises(ClusterError, match=r"cannot be packed: .*a\.py"):
        working_dir.write(tmp_path / "x.zip")


def test_rayignore_leaves_out_what_git_tracks_and_the_settings_name(write):
    root = write("a.yaml", "docs/movie.mp4", "docs/deep/b.txt", "docs/deep/keep.txt")
    (root / ".rayignore").write_text("\\\ndocs/*.mp4\n*.txt\n")
    (root / "docs/deep/.rayignore").write_text("!keep.txt\n")
    commit(root)
    assert sent(root, named=["docs"]) == {"a.yaml", "docs/deep/keep.txt"}


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
    named = [Path("a.yaml"), Path("run.sh")]
    first = WorkingDir.collect(root, named).write(tmp_path / "1.zip").read_bytes()
    (root / "a.yaml").touch()
    archive = WorkingDir.collect(root, named).write(tmp_path / "2.zip")
    assert archive.read_bytes() == first
    with zipfile.ZipFile(archive) as opened:
        assert opened.read("a.yaml") == b"in/a.yaml"
        assert opened.getinfo("run.sh").external_attr >> 16 & 0o777 == 0o755


def test_a_folder_that_is_too_large_is_refused_by_its_largest_files(write, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    with pytest.raises(ClusterError, match=r"Largest: dfnas_ray/.* \(0 MiB\).*\.rayignore"):
        WorkingDir.collect(write("a.yaml")).write(tmp_path / "x.zip")


def test_holds_knows_files_and_folders(write):
    working_dir = WorkingDir.collect(write("data/test/a.png", "x.pt"), [Path("data"), Path("x.pt")])
    assert working_dir.holds(Path("x.pt"))
    assert working_dir.holds(Path("./data/test"))
    assert not working_dir.holds(Path("data/te"))
    assert not working_dir.holds(Path("../x.pt"))
