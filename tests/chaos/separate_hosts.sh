#!/usr/bin/env bash
# Separate hosts on one machine: a head and two workers in network namespaces of their own, one worker cut off mid-run.
#
#   sudo tests/chaos/separate_hosts.sh [EXPERIMENT.yaml]     (root, iproute2; `dfnas` and `ray` in PATH or in .venv/bin)
#
# The run through the namespaces must end with the shards, the genotype and the weights of a run on a local cluster.
# All hosts see one folder, as with a network filesystem. Everything that is made here is removed at the end.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
[ -d "$root/.venv/bin" ] && PATH="$root/.venv/bin:$PATH"
for tool in ip dfnas ray; do command -v "$tool" >/dev/null || { echo "needs $tool" >&2; exit 2; }; done
[ "$(id -u)" = 0 ] || { echo "needs root, for network namespaces" >&2; exit 2; }

work=$(mktemp -d /tmp/dfns.XXXX) # short: Ray's socket names have 107 bytes
experiment=${1:-$work/tiny.yaml}
hosts=(dfns-head dfns-a dfns-b)
log() { echo "$(date +%T) $*"; }

clean_up() {
  for host in "${hosts[@]}"; do
    ip netns pids "$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip link del "v-$host" 2>/dev/null || true
    ip netns del "$host" 2>/dev/null || true
  done
  ip link del dfns-bridge 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT

cat >"$work/tiny.yaml" <<'YAML'
name: separate-hosts
teacher: {kind: digits, width: 4, epochs: 3}
synthesis:
  {num_shards: 6, images_per_shard: 20, flip_probability: 0, precision: float32, compile: false,
   method: {kind: inversion, batch_size: 20, rounds: 2, scales: [{scale: 1, steps: 60}], warmup_steps: 5}}
search:
  space: {kind: nasbench_macro, stem_channels: 4, stage_layers: [1, 1], stage_channels: [8, 16], head_channels: 16}
  algorithm:
    {kind: spos, epochs: 2, batch_size: 16, calibration_batches: 2,
     evolution: {generations: 2, population: 4, parents: 2, mutations: 2, crossovers: 2}}
  max_macs: null
  selection: {finalists: 2, epochs: 2}
retraining: {epochs: 2, batch_size: 16}
YAML

export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS

log "three hosts: 10.77.0.1 (head, no CPUs), 10.77.0.2 and 10.77.0.3 (workers)"
ip link add dfns-bridge type bridge
ip link set dfns-bridge up
number=1
for host in "${hosts[@]}"; do
  ip netns add "$host"
  ip link add "v-$host" type veth peer name eth0 netns "$host"
  ip link set "v-$host" master dfns-bridge up
  ip -n "$host" addr add "10.77.0.$number/24" dev eth0
  ip -n "$host" link set eth0 up
  ip -n "$host" link set lo up
  number=$((number + 1))
done

in_host() { ip netns exec "$@"; }
start_worker() { # host, address
  in_host "$1" ray start --block --address=10.77.0.1:6379 --node-ip-address="$2" --num-cpus=2 --num-gpus=0 \
    --object-store-memory=150000000 >"$work/$1.log" 2>&1 &
}
in_host dfns-head ray start --head --block --port=6379 --node-ip-address=10.77.0.1 --num-cpus=0 --num-gpus=0 \
  --include-dashboard=false --object-store-memory=150000000 --temp-dir="$work/h" >"$work/head.log" 2>&1 &
sleep 8
start_worker dfns-a 10.77.0.2

until grep -q "Ray runtime started" "$work/dfns-a.log"; do sleep 0.2; done

log "the run, through the head"
in_host dfns-head dfnas run "$experiment" --run-dir "$work/run" --address 10.77.0.1:6379 >"$work/run.log" 2>&1 &
run=$!
until compgen -G "$work/run/synthesis/*/shard-*.parquet" >/dev/null; do
  kill -0 "$run" 2>/dev/null || { cat "$work/run.log" "$work"/*.log; exit 1; }
  sleep 0.05
done
made=$(compgen -G "$work/run/synthesis/*/shard-*.parquet" | wc -l)
ip link set v-dfns-a down
log "10.77.0.2 is cut off, with $made shard(s) made; 10.77.0.3 joins"
start_worker dfns-b 10.77.0.3
wait "$run" || { cat "$work/run.log"; exit 1; }
tr '\r' '\n' <"$work/run.log" | grep -E "died|was interrupted|failed" || { echo "no line says what happened" >&2; exit 1; }

log "the same on a local cluster, undisturbed"
dfnas run "$experiment" --run-dir "$work/local" --set cluster.num_cpus=2 >"$work/local.log" 2>&1 || { cat "$work/local.log"; exit 1; }

cd "$work/local"
compared=0
for file in synthesis/*/shard-*.parquet search/*/*/result.json retraining/*/weights.safetensors baseline/*/weights.safetensors; do
  cmp "$file" "$work/run/$file"
  compared=$((compared + 1))
done
log "ok: $compared files are byte for byte the same"
