#!/usr/bin/env bash
# One experiment on the nodes of a Slurm allocation: a Ray cluster with a token of its own, gone when the job ends.
#
#   sbatch cluster/slurm.sh experiments/digits.yaml --run-dir /shared/runs/digits --set cluster.search.gpus=1
#
# From a folder that all nodes see, with `dfnas` on PATH or a virtual environment in DFNAS_VENV. Everything after the
# script's name goes to `dfnas run`. Submitted again after a time limit, it goes on from what the run directory holds.
# The other nodes reach the first one at its first IPv4 address. If that is of another network, name one in DFNAS_HEAD_IP.
#SBATCH --job-name=dfnas
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=08:00:00
#SBATCH --output=%x-%j.log
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "usage: sbatch $0 EXPERIMENT.yaml [options of dfnas run]" >&2
  exit 2
fi
if [ -n "${DFNAS_VENV:-}" ]; then
  # shellcheck disable=SC1091
  source "$DFNAS_VENV/bin/activate"
fi

# Ports of this job alone: others may share the nodes. Ray's own "start everywhere" helper would stop their clusters.
port=$((20000 + SLURM_JOB_ID % 10000))
client_port=$((30000 + SLURM_JOB_ID % 10000))
dashboard_port=$((40000 + SLURM_JOB_ID % 10000))

# The token reaches the nodes through a file that only this user can read, never through a command line.
state="$(mktemp -d -p "$SLURM_SUBMIT_DIR" .dfnas-ray-XXXXXX)"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$state/auth_token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$state/auth_token"

steps=()
clean_up() {
  if [ ${#steps[@]} -gt 0 ]; then
    kill "${steps[@]}" 2>/dev/null || true # srun passes it on to its Ray processes
    wait "${steps[@]}" 2>/dev/null || true
  fi
  rm -rf "$state"
}
trap clean_up EXIT
trap 'exit 143' TERM INT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head="${nodes[0]}"
head_ip="${DFNAS_HEAD_IP:-}"
if [ -z "$head_ip" ]; then # `hostname --ip-address` is 127.0.1.1 on Debian and Ubuntu, or an IPv6 address
  addresses="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --all-ip-addresses)"
  for address in $addresses; do
    if [[ "$address" =~ ^[0-9.]+$ && "$address" != 127.* ]]; then
      head_ip="$address"
      break
    fi
  done
fi
if [ -z "$head_ip" ]; then
  echo "The node $head has no IPv4 address but its loopback: '$addresses'. Set DFNAS_HEAD_IP to one that the others reach." >&2
  exit 1
fi
cpus=(--cpus-per-task="$SLURM_CPUS_PER_TASK") # since Slurm 22.05, srun does not take it from the job: Ray would sit on one CPU
common=(--num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block)
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
  common+=(--num-gpus="$SLURM_GPUS_ON_NODE")
fi
scratch="/tmp/dfnas-$SLURM_JOB_ID" # short: Ray's socket names have 107 bytes

# The dashboard is on the head's loopback: whoever opens it can run code. `ssh -L` reaches it.
srun --nodes=1 --ntasks=1 --nodelist="$head" "${cpus[@]}" \
  ray start --head --node-ip-address="$head_ip" --port="$port" --ray-client-server-port="$client_port" \
  --dashboard-host=127.0.0.1 --dashboard-port="$dashboard_port" --temp-dir="$scratch" "${common[@]}" &
steps+=($!)

export RAY_ADDRESS="$head_ip:$port"
wait_for_nodes() { # until $1 nodes are there
  python - "$1" <<'PYTHON'
import sys
import time

import ray

wanted, end = int(sys.argv[1]), time.monotonic() + 180
while True:
    try:
        ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
        there = sum(node["Alive"] for node in ray.nodes())
        ray.shutdown()
        if there >= wanted:
            break
    except (ConnectionError, RuntimeError, ValueError) as error:
        there = f"none yet: {error}"
    if time.monotonic() > end:
        sys.exit(f"{wanted} Ray nodes were wanted, and after 3 minutes there are {there}.")
    time.sleep(2)
PYTHON
}
wait_for_nodes 1

if [ ${#nodes[@]} -gt 1 ]; then
  others=$((${#nodes[@]} - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head" "${cpus[@]}" \
    ray start --address="$RAY_ADDRESS" "${common[@]}" &
  steps+=($!)
  wait_for_nodes ${#nodes[@]}
fi

dfnas run "$@" --address auto
