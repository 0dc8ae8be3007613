"""What a user sees who mistyped: one message that names setting, value and remedy, exit code 2, no traceback."""

from __future__ import annotations

import http.server
import json
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from jsonschema import Draft202012Validator

from dfnas_ray.config.experiment import ExperimentConfig, load_experiment
from dfnas_ray.teachers.digits import DigitsCNN

pytestmark = pytest.mark.timeout(120)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def refused(dfnas, tiny_yaml, tmp_path):
    """Return a function that expects a refusal and gives its message. The tiny experiment unless a file is named.

    Nothing may be left of a run directory that was not there, but for a built-in teacher that was trained.
    """

    def run(command, *arguments, file=tiny_yaml, run_dir=tmp_path / "run") -> str:
        where = () if run_dir is None else ("--run-dir", run_dir)
        is_new = not (tmp_path / "run").exists()
        code, _, err = dfnas(command, file, *where, *arguments)
        if is_new and (tmp_path / "run").exists():
            assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "teacher"}
        assert code == 2, err
        assert "Traceback" not in err
        assert "error: " in err
        return err

    return run


@pytest.fixture
def checkpoint_teacher(monkeypatch, tmp_path):
    """Return a function that gives the --set arguments of a checkpoint teacher."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "nets_of_the_cli_tests.py").write_text(
        "from torch import nn\n\n\n"
        "def plain():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )

    def settings(checkpoint, builder="dfnas_ray.teachers.digits:DigitsCNN", arguments="{width: 4}"):
        teacher = (
            f"{{kind: checkpoint, checkpoint: {checkpoint}, builder: '{builder}', arguments: {arguments}, "
            "image_shape: [1, 16, 16], mean: [0.3], std: [0.3]}"
        )
        return "--set", f"teacher={teacher}"

    return settings


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("synthesis.method.batchsize=10", ["synthesis.method.batchsize is not a setting", "Did you mean batch_size?"]),
        ("serach.max_macs=1", ["serach is not a setting", "Did you mean search?"]),
        ("synthesis.method.rounds=many", ["synthesis.method.rounds ('many')", "integer"]),
        ("synthesis.method.rounds=0", ["synthesis.method.rounds (0)", "greater than 0"]),
        ("synthesis.flip_probability=1.5", ["synthesis.flip_probability (1.5)", "less than or equal to 1"]),
        ("synthesis.method.batch_size=13", ["images_per_shard (20)", "method.batch_size (13)", "Next multiple: 26"]),
        (
            "search.start_after_shards=4",
            ["search.start_after_shards (4)", "synthesis.num_shards (3)", "Set it to 3 or less, or to null"],
        ),
        ("search.start_after_shards=0", ["search.start_after_shards (0)", "greater than 0"]),
        (
            "search={start_after_shards: 1, algorithm: {kind: random_search}}",
            ["start_after_shards (1)", "does nothing for random_search", "null"],
        ),
        (
            "search.algorithm={kind: proxyless, cost: {kind: latency, file: absent.json}}",
            ["search.algorithm.cost.file (absent.json)", "is not there", "dfnas space latency nasbench_macro"],
        ),
        ("search.max_macs=half", ["search.max_macs", "'half'", "50%"]),
        ("teacher={kind: digit}", ["teacher.kind ('digit')", "'digits'", "'checkpoint'", "'torchvision'"]),
        ("evaluation.dataset={kind: photos}", ["evaluation.dataset.kind ('photos')", "'image_folder'"]),
        ("synthesis.method.rounds", ["--set 'synthesis.method.rounds'", "dotted.key=value"]),
        ("synthesis.method.scales=[1", ["--set synthesis.method.scales", "not a YAML value"]),
        ("synthesis.method.scales.5.steps=1", ["synthesis.method.scales.5.steps", "'5'", "list of 2"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_would_be_right(refused, override, words):
    message = refused("run", "--set", override)
    assert [word for word in words if word not in message] == [], message


def test_all_wrong_settings_are_named_at_once(refused):
    message = refused("run", "--set", "synthesis.method.rounds=0", "--set", "retraining.epochs=0")
    assert "synthesis.method.rounds (0)" in message
    assert "retraining.epochs (0)" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher: [digits", ["is not valid YAML", "line 1"]),
        ("teacher: digits\nseed: 1\nseed: 2\n", ["'seed' is given twice"]),
        ("just words", ["must be a mapping", "teacher: digits"]),
        ("", ["must be a mapping"]),
        ("seed: 1", ["teacher is missing"]),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(refused, tmp_path, text, words):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    message = refused("run", file=file)
    assert [word for word in words if word not in message] == [], message


def test_a_missing_file_is_named(refused, tmp_path):
    assert f"{tmp_path / 'nothing.yaml'} cannot be read" in refused("run", file=tmp_path / "nothing.yaml")


def test_a_missing_checkpoint_is_named(refused, checkpoint_teacher, tmp_path):
    message = refused("synthesize", *checkpoint_teacher(tmp_path / "none.pt"))
    assert f"{tmp_path / 'none.pt'} does not exist" in message
    assert "teacher.checkpoint" in message


def test_a_checkpoint_of_another_network_lists_the_keys_that_do_not_fit(refused, checkpoint_teacher, tmp_path):
    state = DigitsCNN(width=8).state_dict()
    state["extra.weight"] = state.pop("classifier.bias")
    torch.save(state, tmp_path / "other.pt")
    message = refused("synthesize", *checkpoint_teacher(tmp_path / "other.pt"))
    assert "1 missing: classifier.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "features.0.0.weight (8, 1, 3, 3) instead of (4, 1, 3, 3)" in message
    assert "teacher.builder (dfnas_ray.teachers.digits:DigitsCNN)" in message
    assert "teacher.arguments ({'width': 4})" in message


def test_a_web_page_saved_as_a_checkpoint_is_named_as_one(refused, checkpoint_teacher, tmp_path):
    (tmp_path / "page.pt").write_text("<!DOCTYPE html>\n<html><body>Sign in</body></html>\n")
    message = refused("synthesize", *checkpoint_teacher(tmp_path / "page.pt"))
    assert f"{tmp_path / 'page.pt'} is a web page" in message
    assert "Download it again" in message
    assert "would run code" not in message


def test_a_checkpoint_that_would_run_code_is_refused(refused, checkpoint_teacher, tmp_path):
    torch.save(DigitsCNN(width=4), tmp_path / "pickled.pt")  # the module itself, not its state dict
    message = refused("synthesize", *checkpoint_teacher(tmp_path / "pickled.pt"))
    assert "would run code" in message
    assert "state_dict()" in message


def test_a_teacher_without_batch_norm_is_refused_with_the_way_out(refused, checkpoint_teacher, tmp_path):
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 10)
    )
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    settings = checkpoint_teacher(tmp_path / "plain.pt", "nets_of_the_cli_tests:plain", "{}")
    message = refused("run", *settings)
    assert "no BatchNorm" in message
    assert "synthesis.regularizers.bn_statistics.weight=0" in message


def test_a_limit_that_no_architecture_meets_is_refused_before_images_are_made(refused, tmp_path):
    message = refused("search", "--set", "search.max_macs=10")
    assert "search.max_macs (10)" in message
    assert "Raise it" in message
    assert not (tmp_path / "run" / "synthesis").exists()


def test_missing_evaluation_images_are_found_before_images_are_made(refused, tmp_path):
    dataset = f"{{kind: image_folder, path: {tmp_path / 'nowhere'}}}"
    message = refused("run", "--set", f"evaluation.dataset={dataset}")
    assert f"evaluation.dataset.path ({tmp_path / 'nowhere'}) does not exist" in message
    assert "one sub-folder of images per class" in message
    assert not (tmp_path / "run" / "synthesis").exists()


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("{kind: parquet, path: none.parquet}", ["evaluation.dataset.path (none.parquet) does not exist", "Parquet"]),
        ("{kind: torchvision, name: CIFAR11}", ["evaluation.dataset.name (CIFAR11)", "Did you mean CIFAR1"]),
        (
            "{kind: torchvision, name: CIFAR10, root: nowhere}",
            ["evaluation.dataset.root (nowhere)", "evaluation.dataset.arguments.download=true"],
        ),
        (
            "{kind: torchvision, name: CIFAR10, arguments: {split: val}}",
            ["evaluation.dataset.arguments ({'split': 'val'})", "torchvision.datasets.CIFAR10"],
        ),
    ],
)
def test_wrong_evaluation_images_are_named_by_their_setting(refused, tmp_path, monkeypatch, dataset, words):
    monkeypatch.chdir(tmp_path)
    message = refused("run", "--set", f"evaluation.dataset={dataset}")
    assert [word for word in words if word not in message] == [], message
    assert not (tmp_path / "run" / "synthesis").exists()


def test_evaluating_without_a_dataset_says_how_to_give_one(refused):
    message = refused("evaluate", "--set", "evaluation.dataset=null")
    assert "evaluation.dataset is not set" in message
    assert "image_folder" in message


CHAINS = {"whole.csv": "arch,accuracy\n00,91\n01,92\n02,93\n", "foreign.csv": "arch,accuracy\n00,91\n|none~0|,92\n"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["no benchmark section", "--table FILE"]),
        (("--table", "absent.csv"), ["benchmark.table (absent.csv) does not exist"]),
        (("--table", "foreign.csv"), ["foreign.csv, row 1: '|none~0|' is not a genotype of nasbench_macro"]),
        (
            ("--table", "whole.csv", "--architectures", "4"),
            ["benchmark.architectures (4)", "3 rows that the table has"],
        ),
        (("--table", "whole.csv", "--set", "benchmark.accuracy_column=top1"), ["'top1'", "columns are arch, accuracy"]),
        (("--table", "whole.csv", "--set", "benchmark.rows=[1, 1]"), ["rows [1, 1] hold no row"]),
        (("--table", "whole.csv", "--set", "benchmark.sources=[real]"), ["source real needs benchmark.real"]),
        (
            (
                "--table",
                "whole.csv",
                "--set",
                "benchmark.sources=[real]",
                "--set",
                "benchmark.real={kind: image_folder, path: absent}",
            ),
            ["benchmark.real.path (absent) does not exist"],
        ),
        (
            ("--table", "whole.csv", "--set", "search.algorithm={kind: darts}"),
            ["darts cannot rank", "alphas", "random_search, spos"],
        ),
    ],
)
def test_a_benchmark_that_cannot_work_is_refused_before_anything_is_made(
    refused, tmp_path, monkeypatch, arguments, words
):
    monkeypatch.chdir(tmp_path)
    for name, text in CHAINS.items():
        (tmp_path / name).write_text(text)
    message = refused("benchmark", *arguments)
    assert [word for word in words if word not in message] == [], message
    assert not (tmp_path / "run").exists()


def test_a_run_directory_below_a_file_is_refused(refused, tmp_path):
    (tmp_path / "file").touch()
    message = refused("synthesize", run_dir=tmp_path / "file" / "run")
    assert str(tmp_path / "file" / "run") in message
    assert "run_dir" in message


def test_a_genotype_of_another_space_is_refused_before_images_are_made(refused, tmp_path):
    message = refused("retrain", "--genotype", "22212220")
    assert "22212220" in message
    assert not (tmp_path / "run" / "synthesis").exists()


@pytest.mark.ray
@pytest.mark.parametrize("command", ["synthesize", "search", "run", "sweep"])
def test_a_cluster_that_is_not_there_is_reported_at_once(refused, monkeypatch, command):
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have connected this process
    started = time.monotonic()
    swept = "sweep={settings: {synthesis.method.lr: {uniform: [0.1, 1]}}, fixed: {synthesis.num_shards: 1}}"
    message = refused(command, "--address", "127.0.0.1:1", *(("--set", swept) if command == "sweep" else ()))
    assert time.monotonic() - started < 20
    assert "cluster.address 127.0.0.1:1" in message
    assert "--address local" in message


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "auto"])
def test_a_sweep_through_ray_client_in_an_object_store_is_refused_before_anything_is_written(
    refused, monkeypatch, address
):
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:1")
    swept = "sweep={settings: {synthesis.method.lr: {uniform: [0.1, 1]}}}"
    store = "s3://bucket/run?region=eu-central-1&endpoint_override=127.0.0.1:1"
    message = refused("sweep", "--address", address, "--set", swept, run_dir=store)
    assert "cluster.address (ray://127.0.0.1:1) is Ray Client's" in message
    assert "dfnas submit FILE --command sweep" in message


@pytest.fixture
def submit_refused(refused, monkeypatch, tmp_path):
    """Return a function that expects that a submission to an address is refused, within seconds."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # and what the command sets is unset afterwards

    def run(dashboard: str, *arguments) -> str:
        started = time.monotonic()
        message = refused("submit", "--dashboard", dashboard, *arguments)
        assert time.monotonic() - started < 15
        return message

    return run


@pytest.fixture
def listening():
    """Return a function that listens on a port, answers as told (None: never), and gives the address."""
    servers = []

    def start(status: int | None) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                if status is None:
                    released.wait(20)
                    return
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"<html>hello</html>")

            def log_message(self, *args):
                pass

        released = threading.Event()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append((server, released))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, released in servers:
        released.set()
        server.shutdown()
        server.server_close()


def test_a_dashboard_that_is_not_there_is_reported_at_once(submit_refused):
    message = submit_refused("http://127.0.0.1:1")
    assert "No Ray dashboard answers at http://127.0.0.1:1" in message
    assert "--dashboard" in message


def test_a_dashboard_that_never_answers_is_not_waited_for(submit_refused, listening, monkeypatch):
    monkeypatch.setattr("dfnas_ray.execution.ray.dashboard._ANSWER_SECONDS", 0.5)
    assert "timed out" in submit_refused(listening(None))


@pytest.mark.parametrize("status", [200, 404])
def test_what_is_no_ray_dashboard_is_named(submit_refused, listening, status):
    address = listening(status)
    assert address in submit_refused(address)


@pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://head:port", "auto://x"])
def test_an_address_that_is_no_dashboard_is_refused(submit_refused, address):
    message = submit_refused(address)
    assert f"--dashboard {address}" in message
    assert "such as http://127.0.0.1:8265" in message


def test_a_wrong_setting_is_found_before_the_dashboard_is_asked(submit_refused):
    assert "Did you mean batch_size?" in submit_refused("http://127.0.0.1:1", "--set", "synthesis.method.batchsize=3")


def test_a_dry_run_shows_what_would_be_sent_and_called(dfnas, tiny_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("id.key", "notes.txt", "table.csv"):
        (tmp_path / name).touch()
    words = ("submit", tiny_yaml, "--run-dir", "/shared/run", "--command", "search", "--dry-run", "--include", "*.csv")
    code, out, err = dfnas(*words)
    assert code == 0
    assert "  tiny.yaml\n" in out
    assert "  table.csv\n" in out
    assert "id.key" not in out + err
    assert "notes.txt" not in out
    assert "python -m dfnas_ray search tiny.yaml --set run_dir=/shared/run --set cluster.address=auto" in out
    assert "would be sent" in err


def test_ctrl_c_while_following_says_that_the_job_goes_on(dfnas, monkeypatch):
    def interrupted(self, job_id, write):
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "dfnas_ray.execution.ray.dashboard.Dashboard.__init__", lambda self, url: setattr(self, "url", url)
    )
    monkeypatch.setattr("dfnas_ray.execution.ray.dashboard.Dashboard.follow", interrupted)
    code, _, err = dfnas("jobs", "logs", "x-1", "--follow", "--dashboard", "http://head:8265")
    assert code == 130
    assert "Job x-1 goes on. Watch it: dfnas jobs logs x-1 --follow --dashboard http://head:8265" in err
    assert "Stop it: dfnas jobs stop x-1 --dashboard http://head:8265" in err


@pytest.mark.ray
def test_more_gpus_than_the_cluster_has_are_refused(refused, ray_cluster):
    message = refused("synthesize", "--set", "cluster.synthesis.gpus=8")
    assert "cluster.synthesis.gpus=8" in message
    assert "the cluster has 0" in message
    assert "Lower cluster.synthesis.gpus" in message


@pytest.mark.ray
def test_what_a_later_stage_asks_for_is_refused_before_the_first_begins(refused, ray_cluster, tmp_path):
    message = refused("run", "--set", "cluster.retraining.cpus=64")
    assert "cluster.retraining.cpus=64" in message
    assert not list(tmp_path.rglob("synthesis"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            "{settings: {synthesis.method.rounds: {uniform: [1, 3]}}}",
            ["sweep.settings.synthesis.method.rounds at 1.76"],
        ),
        (
            "{settings: {synthesis.method.lr: {uniform: [0.1, 1]}}, pruning: {min_rounds: 9}}",
            ["sweep.pruning.min_rounds (9)", "rounds that a trial makes"],
        ),
    ],
)
def test_a_sweep_that_could_not_run_is_refused_before_it_starts(refused, settings, words):
    message = refused("sweep", "--set", f"sweep={settings}")
    for word in words:
        assert word in message


def test_config_show_prints_what_loads_back_to_the_same_experiment(dfnas, tiny_yaml, tmp_path):
    override = "synthesis.regularizers.bn_statistics.weight=3"
    code, out, _ = dfnas("config", "show", tiny_yaml, "--set", override)
    assert code == 0
    shown = tmp_path / "shown.yaml"
    shown.write_text(out)
    assert load_experiment(shown) == load_experiment(tiny_yaml, [override])
    assert yaml.safe_load(out)["synthesis"]["regularizers"]["bn_statistics"]["weight"] == 3


def test_config_show_says_what_is_chosen_for_the_teacher_when_it_is_asked(dfnas, tmp_path):
    file = tmp_path / "bare.yaml"
    file.write_text("teacher: {kind: digits, width: 4, epochs: 1}\nretraining: {batch_size: 32}\n")
    code, out, _ = dfnas("config", "show", file)
    assert code == 0
    assert "chosen for the teacher" in out
    shown = yaml.safe_load(out)
    assert "synthesis" not in shown  # its defaults would be given settings to whoever reads this
    assert shown["retraining"] == {"batch_size": 32}
    code, out, _ = dfnas("config", "show", file, "--teacher", "--set", f"run_dir={tmp_path / 'run'}")
    assert code == 0
    shown = yaml.safe_load(out)
    assert shown["synthesis"]["method"]["kind"] == "generator"
    assert shown["retraining"]["batch_size"] == 32
    assert shown["retraining"]["optimizer"]["momentum"] == 0.9


def test_config_schema_is_a_json_schema_of_all_settings(dfnas):
    code, out, _ = dfnas("config", "schema")
    assert code == 0
    schema = json.loads(out)
    assert {"teacher", "synthesis", "search", "retraining", "evaluation", "cluster"} <= set(schema["properties"])


@pytest.mark.parametrize("file", sorted(REPOSITORY.glob("experiments/*.yaml")), ids=lambda file: file.stem)
def test_an_editor_finds_nothing_wrong_with_the_experiments_that_come_along(file):
    Draft202012Validator(ExperimentConfig.model_json_schema()).validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    ("search", "is_right"),
    [
        ({"space": "darts", "algorithm": ["spos", {"kind": "darts"}], "max_macs": "50%"}, True),
        ({"space": "dart"}, False),
        ({"algorithm": ["darts", "spas"]}, False),
    ],
)
def test_an_editor_knows_the_short_forms(search, is_right):
    schema = Draft202012Validator(ExperimentConfig.model_json_schema())
    assert schema.is_valid({"teacher": "digits", "search": search}) == is_right


def test_teacher_inspect_shows_fingerprint_and_batch_norms(dfnas, tiny_yaml, tmp_path):
    code, out, _ = dfnas("teacher", "inspect", tiny_yaml, "--run-dir", tmp_path / "run")
    assert code == 0
    words = out.split()
    assert len(words[words.index("fingerprint") + 1]) == 64
    assert "5 layers with running statistics" in " ".join(words)


def test_help_names_every_command(dfnas):
    code, out, _ = dfnas("--help")
    assert code == 0
    commands = ("run", "synthesize", "search", "retrain", "evaluate", "report", "submit", "jobs", "teacher", "config")
    assert [name for name in commands if name not in out] == []


def test_a_name_that_no_file_can_have_is_named_and_shortened(dfnas, tmp_path):
    code, out, err = dfnas("init", "--example", "digits", tmp_path / ("a" * 300 + ".yaml"))
    assert (code, out) == (2, "")
    assert "cannot be used: File name too long. Choose another." in err
    assert len(err) < 300


def test_a_working_directory_that_is_gone_is_said_before_anything_is_loaded(dfnas, tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    code, _, err = dfnas("config", "show", tmp_path / "x.yaml")
    assert code == 2
    assert err == "error: The working directory cannot be used (No such file or directory). Change to another one."
