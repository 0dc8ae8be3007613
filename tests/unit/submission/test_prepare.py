"""What is checked before a job is sent, and what it then calls."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from dfnas_ray.cli.submit import check_options
from dfnas_ray.errors import ConfigError, DfnasError
from dfnas_ray.submission.prepare import prepare


@pytest.fixture
def project(tmp_path, tiny_values):
    """A working directory with the tiny experiment."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.yaml").write_text(yaml.safe_dump(tiny_values()))
    return tmp_path


@pytest.fixture
def refusal(project):
    """Return a function that expects a refusal and gives its message."""

    def message(*overrides: str, command: str = "run", run_dir: str = "/shared/run") -> str:
        with pytest.raises(DfnasError) as raised:
            prepare(command, project / "experiments/tiny.yaml", [*overrides, f"run_dir={run_dir}"], project)
        return str(raised.value)

    return message


def test_the_job_calls_the_command_with_the_same_settings_on_its_own_cluster(project):
    submission = prepare("search", project / "experiments/tiny.yaml", ["run_dir=/shared/a b"], project, verbose=True)
    assert shlex.split(submission.entrypoint) == [
        *("python", "-m", "dfnas_ray", "search", "experiments/tiny.yaml"),
        *("--set", "run_dir=/shared/a b", "--set", "cluster.address=auto", "--verbose"),
    ]
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", submission.id)
    assert submission.working_dir.holds(project.joinpath("experiments/tiny.yaml").relative_to(project))


def test_a_typo_is_found_here(refusal):
    assert "Did you mean batch_size?" in refusal("synthesis.method.batchsize=3")


def test_a_relative_run_directory_would_be_lost_with_the_job(refusal):
    message = refusal(run_dir="runs/x")
    assert "run_dir (runs/x) is relative" in message
    assert "s3://" in message


@pytest.mark.parametrize(
    "uri", ["mlruns", "./mlruns", "file:mlruns", "sqlite:///mlflow.db", "sqlite://", "sqlite+pysqlite:///x.db"]
)
def test_an_mlflow_store_in_the_working_directory_would_be_lost_with_the_job(refusal, uri):
    message = refusal(f"tracking.mlflow.tracking_uri='{uri}'")
    assert f"tracking.mlflow.tracking_uri ({uri}) is relative: set tracking.mlflow.tracking_uri" in message
    assert "http://HOST:5000" in message


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "/shared/mlruns", "file:///shared/mlruns", "sqlite:////shared/m.db", "databricks", "null"],
)
def test_an_mlflow_store_that_lasts_or_that_only_the_cluster_knows_is_accepted(project, uri):
    overrides = ["run_dir=/shared/run", f"tracking.mlflow={{tracking_uri: '{uri}'}}".replace("'null'", "null")]
    assert prepare("run", project / "experiments/tiny.yaml", overrides, project).config.tracking.mlflow


def test_offline_files_of_weights_and_biases_need_a_run_directory_that_is_a_folder(project, refusal):
    offline = "tracking.wandb={mode: offline}"
    message = refusal(offline, "tracking.mlflow.tracking_uri=mlruns", run_dir="s3://bucket/x")
    assert "tracking.wandb.mode is offline" in message
    assert "tracking.mlflow.tracking_uri (mlruns)" in message, "one error for all"
    accepted = ([offline, "run_dir=/shared/run"], ["tracking.wandb={}", "run_dir=s3://bucket/x"])
    for overrides in accepted:
        prepare("run", project / "experiments/tiny.yaml", overrides, project)


def test_a_password_in_the_run_directory_would_be_shown_on_the_dashboard(refusal):
    message = refusal(run_dir="s3://key:canary@bucket/x")
    assert "run_dir holds a password" in message
    assert "canary" not in message


def test_a_token_in_any_uri_would_be_shown_on_the_dashboard(refusal):
    uri = "abfss://c@acct.dfs.core.windows.net/x?sig=canary"
    assert "run_dir holds the parameter sig" in refusal(run_dir=uri)
    assert "canary" not in refusal(run_dir=uri)
    dataset = f"evaluation.dataset={{kind: parquet, path: '{uri}'}}"
    assert "evaluation.dataset.path holds the parameter sig" in refusal(dataset, command="search")


def test_an_experiment_that_git_ignores_is_sent_and_one_that_rayignore_names_is_refused(project, refusal):
    subprocess.run(["git", "-C", str(project), "init", "-q"], check=True)
    (project / ".gitignore").write_text("experiments/\n")
    file = Path("experiments/tiny.yaml")
    assert prepare("run", project / file, ["run_dir=/shared/run"], project).working_dir.holds(file)
    (project / ".rayignore").write_text("experiments/\n")
    assert "tiny.yaml is not sent: a .rayignore names it." in refusal()


def test_an_experiment_with_a_name_of_credentials_is_sent_if_it_is_named(project):
    file = (project / "experiments/tiny.yaml").rename(project / "secrets.yaml")
    with pytest.raises(ConfigError, match=r"secrets\.yaml is not sent: its name is typical of credentials"):
        prepare("run", file, ["run_dir=/shared/run"], project)
    submission = prepare("run", file, ["run_dir=/shared/run"], project, include=["secrets.yaml"])
    assert submission.working_dir.holds(Path("secrets.yaml"))


def test_an_experiment_outside_of_the_working_directory_is_refused(project):
    with pytest.raises(ConfigError, match="--working-dir"):
        prepare("run", project / "experiments/tiny.yaml", ["run_dir=/x"], project / "other")
    (project / "other").mkdir()
    with pytest.raises(ConfigError, match="is not below"):
        prepare("run", project / "experiments/tiny.yaml", ["run_dir=/x"], project / "other")


TEACHER = (
    "teacher={kind: checkpoint, checkpoint: %s, builder: 'a:b', image_shape: [1, 16, 16], mean: [0.3], std: [0.3]}"
)


def test_a_teacher_without_its_checkpoint_is_refused_as_the_command_would(refusal):
    assert "teacher.checkpoint is not set. Give the file" in refusal(TEACHER % "null")


@pytest.mark.parametrize(
    ("command", "override", "words"),
    [
        ("evaluate", "evaluation.dataset=null", "evaluation.dataset is not set"),
        ("sweep", "sweep=null", "has no sweep section"),
        ("benchmark", "benchmark=null", "has no benchmark section"),
        ("benchmark", "benchmark={architectures: 3}", "benchmark.table is not set"),
        ("compare", "comparison=null", "has no comparison section"),
        ("truth", "retraining.labels=null", "are not real"),
    ],
)
def test_what_a_command_would_refuse_as_soon_as_it_starts_is_refused_here(refusal, command, override, words):
    assert words in refusal(override, command=command)


def test_images_in_parquet_that_are_not_there_are_found_here_unless_the_command_does_not_read_them(refusal, project):
    dataset = "evaluation.dataset={kind: parquet, path: %s}"
    assert "evaluation.dataset.path (test.parquet) does not exist" in refusal(dataset % "test.parquet")
    file = project / "experiments/tiny.yaml"
    assert prepare("search", file, [dataset % "test.parquet", "run_dir=/shared/run"], project)
    (project / "test.parquet").touch()
    for path in ("test.parquet", "/shared/test.parquet", "s3://bucket/test.parquet"):
        assert prepare("run", file, [dataset % path, "run_dir=/shared/run"], project)


def test_a_checkpoint_that_is_not_there_is_found_here(refusal):
    assert "teacher.checkpoint (nets/x.pt) does not exist" in refusal(TEACHER % "nets/x.pt")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".cache/x.pt", "it is hidden; --include"),
        ("runs/old/x.pt", "it is in a run directory"),
        ("x.key", "its name is typical of credentials"),
        ("ignored.pt", "a .rayignore names it"),
        ("link.pt", "it is a symbolic link"),
        ("../x.pt", "it is outside of"),
    ],
)
def test_a_checkpoint_that_is_not_sent_is_named_with_the_reason(refusal, project, path, reason):
    for name in (".cache/x.pt", "runs/old/x.pt", "x.key", "ignored.pt", "../x.pt"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "link.pt").symlink_to(project / "ignored.pt")
    (project / ".rayignore").write_text("ignored.pt\n")
    message = refusal(TEACHER % path)
    assert f"teacher.checkpoint ({path}) is not sent: {reason}" in message
    assert "absolute path" in message


def test_an_empty_folder_of_images_is_not_sent(refusal, project):
    (project / "photos").mkdir()
    dataset = "evaluation.dataset={kind: image_folder, path: photos}"
    assert "evaluation.dataset.path (photos) is not sent: it holds no file that may be sent" in refusal(dataset)


def test_the_module_that_builds_the_teacher_goes_along_although_git_does_not_track_it(project):
    (project / "pkg").mkdir()
    for name in ("x.pt", "a.py", "b.py", "pkg/__init__.py", "pkg/net.py", "pkg/notes.txt"):
        (project / name).touch()
    subprocess.run(["git", "-C", str(project), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(project), "add", "experiments"], check=True)
    file = project / "experiments/tiny.yaml"

    def sent(builder: str) -> set[str]:
        teacher = (TEACHER % "x.pt").replace("a:b", builder)
        files = prepare("run", file, [teacher, "run_dir=/shared/run"], project).working_dir.files
        return {name for name in files if not name.startswith("dfnas_ray/")} - {"experiments/tiny.yaml", "x.pt"}

    assert sent("a:b") == {"a.py"}
    assert sent("pkg.net:build") == {"pkg/__init__.py", "pkg/net.py"}


def test_the_code_of_members_goes_along_although_git_does_not_track_it(project, monkeypatch):
    space = "from typing import Literal\nfrom dfnas_ray.search_spaces import NASBenchMacroConfig\n\n\n"
    space += 'class Wide(NASBenchMacroConfig):\n    kind: Literal["wide"] = "wide"\n'
    proxy = "from dfnas_ray.algorithms.zero_cost import Proxy\n\n\nclass Depth(Proxy):\n    kind = 'depth'\n"
    proxy += "    figures = ('depth',)\n\n    def measure(self, candidate):\n        return {'depth': 1.0}\n"
    sources = {"sent_spaces/__init__.py": "", "sent_spaces/wide.py": space, "sent_proxy.py": proxy, "not_named.py": ""}
    (project / "sent_spaces").mkdir()
    for name, source in sources.items():
        (project / name).write_text(source)
    subprocess.run(["git", "-C", str(project), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(project), "add", "experiments"], check=True)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    algorithm = "{kind: zero_cost, proxies: ['sent_proxy:Depth', synflow]}"
    overrides = ["search.space=sent_spaces.wide:Wide", f"search.algorithm={algorithm}", "run_dir=/shared/run"]
    files = prepare("run", project / "experiments/tiny.yaml", overrides, project).working_dir.files
    sent = {name for name in files if not name.startswith("dfnas_ray/")}
    assert sent == {"experiments/tiny.yaml", "sent_spaces/__init__.py", "sent_spaces/wide.py", "sent_proxy.py"}


@pytest.mark.parametrize("path", ["x.pt", "/shared/x.pt"])
def test_a_checkpoint_that_is_sent_or_on_shared_storage_is_accepted(project, path):
    (project / "x.pt").touch()
    file = project / "experiments/tiny.yaml"
    assert prepare("run", file, [TEACHER % path, "run_dir=/shared/run"], project)


def test_a_table_that_is_not_there_is_found_here(refusal, project):
    message = refusal("benchmark.table=nb201.csv", command="benchmark")
    assert "benchmark.table (nb201.csv) does not exist" in message
    (project / "nb201.csv").touch()
    file = project / "experiments/tiny.yaml"
    for table in ("nb201.csv", "/shared/nb201.csv", "s3://bucket/nb201.csv"):
        assert prepare("benchmark", file, [f"benchmark.table={table}", "run_dir=/shared/run"], project)


def test_a_variants_files_are_sent_as_those_of_the_experiment_are(refusal, project):
    real = "{search.images: {kind: real, dataset: {kind: image_folder, path: photos}}}"
    variants = [
        "allow_real_images=true",
        f"comparison={{variants: {{synthetic: {{}}, real: {real}}}}}",
        "evaluation.dataset=digits",
    ]
    message = refusal(*variants, command="compare")
    assert "search.images.dataset.path (photos) does not exist" in message
    (project / "photos" / "cat").mkdir(parents=True)
    (project / "photos" / "cat" / "a.png").write_bytes(b"x")
    file = project / "experiments/tiny.yaml"
    sent = prepare("compare", file, [*variants, "run_dir=/shared/run"], project)
    assert sent.working_dir.holds(Path("photos/cat/a.png"))
    assert prepare("run", file, ["run_dir=/shared/run"], project)


def test_a_latency_table_that_is_not_there_is_found_here(refusal, project):
    table = "search.algorithm={kind: proxyless, cost: {kind: latency, file: t.json}}"
    assert "search.algorithm.cost.file (t.json) does not exist" in refusal(table)
    file = project / "experiments/tiny.yaml"
    assert prepare("synthesize", file, [table, "run_dir=/shared/run"], project)
    (project / "t.json").touch()
    assert prepare("search", file, [table, "run_dir=/shared/run"], project)


def test_a_dataset_that_torchvision_may_download_there_need_not_be_here(project):
    dataset = "evaluation.dataset={kind: torchvision, name: CIFAR10, arguments: {download: true}}"
    assert prepare("run", project / "experiments/tiny.yaml", [dataset, "run_dir=/shared/run"], project)


def test_options_of_the_command_itself_stand_after_the_experiment(project):
    arguments = ("run_dir=/shared/run",), project, False, (), ("--genotype", "22 1")
    submission = prepare("retrain", project / "experiments/tiny.yaml", *arguments)
    words = shlex.split(submission.entrypoint)
    assert words[3:8] == ["retrain", "experiments/tiny.yaml", "--genotype", "22 1", "--set"]


@pytest.mark.parametrize(
    ("command", "options", "error", "words"),
    [
        ("retrain", ["--genotipe", "222"], "UsageError", "No such option: --genotipe"),
        ("run", ["--genotype", "222"], "UsageError", "No such option: --genotype"),
        ("truth", ["--architectures", "many"], "UsageError", "valid int"),
        ("run", ["--set", "seed=1"], "ConfigError", "Give --set before it"),
        ("run", ["--run-dir", "s3://bucket/x"], "ConfigError", "Give --run-dir before it"),
        ("benchmark", ["--table", "table.csv"], "ConfigError", "Give --set benchmark.table=PATH before it"),
        ("truth", ["--out", "table.csv"], "ConfigError", r"--out \(table.csv\) would be lost with the job"),
    ],
)
def test_an_option_that_the_command_would_refuse_or_that_cannot_be_checked_is_refused(command, options, error, words):
    with pytest.raises(Exception) as raised:
        check_options(command, "e.yaml", options)
    assert error in {each.__name__ for each in type(raised.value).__mro__}
    assert re.search(words, getattr(raised.value, "message", str(raised.value)))


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("retrain", ["--genotype", "222"]),
        ("truth", ["--architectures", "20", "--out", "s3://bucket/table.csv"]),
        ("benchmark", ["--architectures", "20", "--json"]),
        ("run", []),
    ],
)
def test_options_that_the_command_has_are_accepted(command, options):
    check_options(command, "e.yaml", options)
