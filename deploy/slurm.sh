#!/usr/bin/env bash
# A Ray cluster on a Slurm allocation, and a worker that drives jobs on it until the allocation ends:
#
#   sbatch --nodes=4 --gpus-per-node=8 --time=24:00:00 deploy/slurm.sh
#
# clr must be installed on the nodes (PATH holds `clr` and `ray`), and CLR_DATABASE_URL name the PostgreSQL that the
# APIs use. What was under way when the allocation ends goes on in the next one.
#SBATCH --job-name=clr
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@30
set -euo pipefail
: "${CLR_DATABASE_URL:?the PostgreSQL database that the APIs use}"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
umask 077
token=$(mktemp "$HOME/.clr-ray-token.XXXXXX") # a folder that all nodes share
trap 'rm -f "$token"' EXIT
openssl rand -hex 32 > "$token"
database=$CLR_DATABASE_URL
unset CLR_DATABASE_URL # what trains has the environment that Ray is started with
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token" CLR_RAY_ADDRESS="$head:$port"

on() { srun --overlap --nodes="$1" --ntasks="$1" "${@:2}"; }
ray="ray start --disable-usage-stats --num-gpus=${SLURM_GPUS_ON_NODE:-0}"

on 1 --nodelist="$head" $ray --head --port="$port" --include-dashboard=false --block &
until on 1 --nodelist="$head" ray health-check --address "$head:$port" > /dev/null 2>&1; do sleep 2; done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    on $((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" $ray --address="$head:$port" --block &
fi

CLR_DATABASE_URL=$database on 1 --nodelist="$head" clr worker & # on the head, whose runtime it joins
worker=$!
trap 'kill -TERM $worker 2> /dev/null; wait $worker' TERM
wait $worker
