"""The recipes in cluster/ against the schemas of those who read them. No cluster is started but where it says so."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray_heads import REPOSITORY, end, plain_environment

from dfnas_ray.submission.prepare import prepare

CLUSTER = REPOSITORY / "cluster"
LAUNCHER = ["aws.yaml", "gcp.yaml"]
KUBERAY = {"kuberay-cluster.yaml": "ray.io_rayclusters.yaml", "kuberay-job.yaml": "ray.io_rayjobs.yaml"}
RAY = version("ray")


def recipe(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def ray_cluster_spec(name: str) -> dict[str, Any]:
    spec = recipe(name)["spec"]
    return spec.get("rayClusterSpec", spec)


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_accepts_a_launcher_recipe(name):
    validate_config(prepare_config(recipe(name)))


@pytest.mark.parametrize("name", LAUNCHER)
def test_rays_own_validation_sees_a_misspelt_key(name):
    wrong = prepare_config(recipe(name))
    wrong["idle_timeout_minuts"] = 5
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        validate_config(wrong)


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_head_of_a_launcher_recipe_has_no_gpu_and_its_gpu_workers_come_from_zero_as_spot_machines(name):
    types = recipe(name)["available_node_types"]
    worker = types["gpu_spot"]
    assert worker["min_workers"] == 0
    assert worker["max_workers"] >= 1
    assert "SPOT" in yaml.safe_dump(worker["node_config"]).upper()
    assert "GPU" not in types[recipe(name)["head_node_type"]]["resources"]


@pytest.mark.parametrize("name", LAUNCHER)
def test_a_launcher_recipe_asks_for_the_token_and_keeps_its_dashboard_on_the_loopback(name):
    config = prepare_config(recipe(name))
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    (start,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_container_of_a_launcher_recipe_gets_the_gpus_of_its_machine(name):
    """Ray adds the nvidia runtime, which gives GPUs only to containers with this variable."""
    assert "--env NVIDIA_VISIBLE_DEVICES=all" in prepare_config(recipe(name))["docker"]["run_options"]


AWS = f"""#!{sys.executable}
import json, pathlib, sys
if sys.argv[1] == "sts":
    print(123456789012)
else:
    with pathlib.Path(__file__).with_name("calls").open("a") as log:
        print(json.dumps(sys.argv[2:]), file=log)
"""


def test_the_commands_of_the_readme_make_the_roles_of_aws_and_the_head_may_give_its_workers_theirs(tmp_path):
    (tmp_path / "aws").write_text(AWS)
    (tmp_path / "aws").chmod(0o755)
    blocks = re.findall(r"```bash\n(.*?)```", (CLUSTER / "README.md").read_text(), re.DOTALL)
    (script,) = [block for block in blocks if "aws iam" in block]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", script], env=environment, check=True)
    profiles, allowed = {}, {"dfnas-head": {}, "dfnas-worker": {}}
    for action, *words in map(json.loads, (tmp_path / "calls").read_text().splitlines()):
        options = dict(zip(words[::2], words[1::2], strict=True))
        if action == "add-role-to-instance-profile":
            profiles[options["--instance-profile-name"]] = options["--role-name"]
        if action == "put-role-policy":
            (statement,) = json.loads(options["--policy-document"])["Statement"]
            allowed[options["--role-name"]][options["--policy-name"]] = statement

    types = recipe("aws.yaml")["available_node_types"]
    head, worker = (profiles[types[name]["node_config"]["IamInstanceProfile"]["Name"]] for name in ("head", "gpu_spot"))
    assert allowed[head]["pass-worker"]["Action"] == "iam:PassRole"
    assert allowed[head]["pass-worker"]["Resource"] == f"arn:aws:iam::123456789012:role/{worker}"
    assert "pass-worker" not in allowed[worker]
    for role in (head, worker):
        assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= {
            *allowed[role]["bucket"]["Action"]
        }
        assert allowed[role]["bucket"]["Resource"] == ["arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/*"]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a custom resource with unknown fields refused, as the API server's strict validation does."""
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            copy[key] = {name: closed(each) for name, each in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            copy[key] = closed(value)
        elif not key.startswith("x-kubernetes"):
            copy[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        copy.pop("type", None)
        copy["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        copy["additionalProperties"] = False
    return copy


@pytest.fixture(scope="module")
def validator():
    """Return a function that gives the validator of a KubeRay resource."""
    folder = os.environ.get("DFNAS_KUBERAY")
    if not folder:
        pytest.skip("$DFNAS_KUBERAY names no folder with KubeRay's custom resource definitions")

    def load(file: str) -> Draft202012Validator:
        definition = yaml.load((Path(folder) / file).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (served,) = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
        schema = closed(served["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}  # the API server's own
        return Draft202012Validator(schema)

    return load


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_a_recipe_and_knows_each_of_its_fields(validator, name):
    check = validator(KUBERAY[name])
    check.validate(recipe(name))
    misspelt = yaml.safe_load((CLUSTER / name).read_text().replace("minReplicas", "minReplica"))
    with pytest.raises(ValidationError, match="minReplica"):
        check.validate(misspelt)


@pytest.mark.parametrize("name", KUBERAY)
def test_a_kuberay_recipe_asks_for_the_token_and_publishes_no_client_port(name):
    spec = ray_cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    ports = {port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]}
    if recipe(name)["kind"] == "RayCluster":
        assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
        assert ports == {6379}
    else:  # the operator has to reach the dashboard
        assert head["serviceType"] == "ClusterIP"
        assert ports == {6379, 8265}


@pytest.mark.parametrize("name", KUBERAY)
def test_the_gpu_workers_of_a_kuberay_recipe_autoscale_from_zero(name):
    spec = ray_cluster_spec(name)
    (workers,) = spec["workerGroupSpecs"]
    assert spec["enableInTreeAutoscaling"]
    assert (workers["replicas"], workers["minReplicas"]) == (0, 0)
    head, worker = (each["template"]["spec"]["containers"][0] for each in (spec["headGroupSpec"], workers))
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in head["env"], "the image asks for all GPUs of the node"
    assert "env" not in worker, "the device plugin sets the variable"


def documented(command: str) -> list[list[str]]:
    """Experiment and options wherever the READMEs, or the recipes' comments, give this command."""
    documents = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")), *sorted(CLUSTER.iterdir()))
    texts = [path.read_text() for path in documents]
    lines = re.findall(rf"^[# ]*{command} (experiments/.*)$", "\n".join(texts).replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def kuberay_job() -> list[str]:
    """The experiment that is put into the job's config map, and the options of the job's command."""
    (file,) = re.findall(r"--from-file=experiment.yaml=(\S+)", (CLUSTER / "kuberay-job.yaml").read_text())
    _, command, mounted, *options = shlex.split(recipe("kuberay-job.yaml")["spec"]["entrypoint"])
    assert (command, mounted) == ("run", "/experiment/experiment.yaml")
    return [file, *options]


SUBMITTED, ALLOCATED = documented("dfnas submit"), documented(r"sbatch .*cluster/slurm\.sh")


def test_the_commands_of_the_readmes_and_of_the_recipes_are_found():
    assert (len(SUBMITTED), len(ALLOCATED)) == (8, 2)


@pytest.mark.parametrize("words", [*SUBMITTED, *ALLOCATED, kuberay_job()], ids=" ".join)
def test_a_documented_command_names_all_that_the_experiment_needs(words, tmp_path):
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    (tmp_path / "resnet20-12fca82f.th").touch()  # whoever names it has it
    file, *options = words
    given = list(zip(options[::2], options[1::2], strict=False))  # --dry-run has no value
    overrides = [f"run_dir={value}" if name == "--run-dir" else value for name, value in given if name != "--address"]
    assert prepare("run", tmp_path / file, overrides, tmp_path).config.run_directory.endswith(Path(file).stem)


def test_every_recipe_has_the_ray_that_the_package_is_tested_with():
    found = re.findall(
        r"rayproject/ray:([\d.]+)-py311|rayVersion: ([\d.]+)", "".join(map(Path.read_text, every_file()))
    )
    assert len(found) == 3
    assert {one or other for one, other in found} == {RAY}


def test_the_readme_names_every_recipe():
    text = (CLUSTER / "README.md").read_text()
    assert [file.name for file in every_file() if file.name not in text] == []


def test_the_image_is_built_from_what_is_there():
    sources = re.findall(r"^COPY (?:--\S+ )?(.+) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    names = " ".join(sources).split()
    assert {"pyproject.toml", "dfnas_ray"} <= set(names)
    assert [name for name in names if not (REPOSITORY / name).exists()] == []


def test_the_image_asks_for_gpus_and_has_the_compiler_that_compiled_networks_need():
    text = (CLUSTER / "Dockerfile").read_text()
    (variables,) = re.findall(r"^ENV (.+)$", text, re.MULTILINE)
    assert variables.split() == ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    (packages,) = re.findall(r"apt-get install (.+?) &&", text)
    assert {"gcc", "g++"} <= set(packages.split())


def test_a_kubernetes_job_that_has_ended_is_made_anew():
    """Kubernetes answers "unchanged" when the file of a job that has ended is applied again."""
    command = "kubectl replace --force -f cluster/kuberay-job.yaml"
    for file in ("kuberay-job.yaml", "README.md"):
        assert command in (CLUSTER / file).read_text(), file


def test_the_slurm_script_is_bash():
    script = str(CLUSTER / "slurm.sh")
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


def every_file() -> list[Path]:
    return [path for path in sorted(CLUSTER.iterdir()) if path.name != "README.md"]


SRUN = """#!/usr/bin/env bash
echo "$*" >>"$SRUN_LOG"
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""


@pytest.fixture
def slurm(tmp_path):
    """Return a function that makes the environment of a Slurm job, with these scripts in the place of programmes."""

    def make(nodes: int, **scripts: str) -> dict[str, str]:
        tools = tmp_path / "bin"
        tools.mkdir()
        hosts = "".join(f"echo host-{number}\n" for number in range(nodes))
        for name, text in {"srun": SRUN, "scontrol": f"#!/bin/sh\n{hosts}", **scripts}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        environment = plain_environment()
        return environment | {
            "PATH": f"{tools}:{environment['PATH']}",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_JOB_NODELIST": "all of them",
            "SLURM_CPUS_PER_TASK": "2",
            "SRUN_LOG": str(tools / "srun.log"),
        }

    return make


@pytest.mark.timeout(60)
def test_every_step_of_the_slurm_script_that_starts_ray_asks_for_its_cpus_itself(slurm, tmp_path):
    """Of srun's environment, Slurm 22.05 and later take no number of CPUs."""
    wait = '#!/bin/sh\nuntil [ "$(grep -c " ray start " "$SRUN_LOG")" -ge "$2" ]; do sleep 0.1; done\n'  # $2 nodes
    here = slurm(2, ray="#!/bin/sh\nexec sleep 50\n", python=wait, dfnas="#!/bin/sh\n")
    subprocess.run([CLUSTER / "slurm.sh", "x.yaml"], env=here, check=True, capture_output=True, timeout=40)
    steps = [line.partition(" ray start ") for line in (tmp_path / "bin" / "srun.log").read_text().splitlines()]
    started = [(srun, ray) for srun, _, ray in steps if ray]
    assert len(started) == 2
    assert all("--cpus-per-task=2" in srun and "--num-cpus=2" in ray for srun, ray in started), started


def started_at(environment: dict[str, str], folder: Path) -> list[str]:
    """Run the Slurm script on one node, and return the addresses at which it starts a head."""
    subprocess.run([CLUSTER / "slurm.sh", "x.yaml"], env=environment, check=True, capture_output=True, timeout=40)
    return re.findall(r"--node-ip-address=(\S+)", (folder / "bin" / "srun.log").read_text())


def told(addresses: str) -> dict[str, str]:
    """Stand-ins for programmes, `hostname` among them as on Debian and Ubuntu."""
    own = f'#!/bin/sh\n[ "$1" = --all-ip-addresses ] && echo "{addresses}" || echo 127.0.1.1\n'
    waits = '#!/bin/sh\nuntil grep -q " ray start " "$SRUN_LOG"; do sleep 0.1; done\n'
    return {"hostname": own, "ray": "#!/bin/sh\nexec sleep 50\n", "python": waits, "dfnas": "#!/bin/sh\n"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("addresses", ["10.1.2.3 10.9.9.9 ", "127.0.1.1 10.1.2.3", "fd00::2 fe80::1 10.1.2.3 "])
def test_the_head_of_the_slurm_script_has_an_address_that_other_nodes_reach(slurm, tmp_path, addresses):
    assert started_at(slurm(1, **told(addresses)), tmp_path) == ["10.1.2.3"]


@pytest.mark.timeout(60)
def test_the_address_of_the_head_of_the_slurm_script_can_be_named(slurm, tmp_path):
    assert started_at(slurm(1, **told("10.1.2.3")) | {"DFNAS_HEAD_IP": "10.7.7.7"}, tmp_path) == ["10.7.7.7"]


def test_a_node_without_an_address_is_told_with_what_to_do(slurm):
    here = slurm(1, **told("127.0.0.1 fd00::2"))
    script = subprocess.run([CLUSTER / "slurm.sh", "x.yaml"], env=here, capture_output=True, text=True, timeout=40)
    assert script.returncode == 1
    assert "host-0 has no IPv4 address but its loopback: '127.0.0.1 fd00::2'. Set DFNAS_HEAD_IP" in script.stderr


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_slurm_script_starts_a_cluster_runs_the_command_in_it_and_leaves_nothing(slurm, tmp_path):
    """Slurm is played by two scripts on this one machine; Ray is real, `dfnas` says what it sees."""
    probe = "import os, ray; ray.init(address='auto', logging_level='ERROR'); print('cluster', ray.cluster_resources()['CPU'])"
    dfnas = f'#!/bin/sh\necho "called: $*"\nls -l "$RAY_AUTH_TOKEN_PATH" | cut -c1-10\npython -c "{probe}"\nexit 3\n'
    process = subprocess.Popen(
        [CLUSTER / "slurm.sh", "x.yaml", "--run-dir", "/shared/a b"],
        env=slurm(1, dfnas=dfnas),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=150)
    finally:
        end(process)
        shutil.rmtree(f"/tmp/dfnas-{os.getpid()}", ignore_errors=True)
    assert process.returncode == 3, output
    assert "called: run x.yaml --run-dir /shared/a b --address auto" in output
    assert "-rw-------" in output
    assert "cluster 2.0" in output
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]  # the token is gone
    assert subprocess.run(["pgrep", "-f", f"/tmp/dfnas-{os.getpid()}"], check=False).returncode == 1
