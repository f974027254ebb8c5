#!/bin/sh
# All stages of examples/release_34m_*.yaml on 1, 2 or 4 GPUs of one machine, with the same rows per
# step. Run it again after any interruption, on as many GPUs: finished stages are passed over, the one
# that was stopped is resumed.
set -e
gpus=${1:?usage: sh examples/release_34m.sh GPUS [section.key=value ...]}
shift
case $gpus in
  1 | 2 | 4) ;;
  *) echo "release_34m.sh: GPUS must be 1, 2 or 4, got $gpus" >&2; exit 2 ;;
esac
for stage in 1 2 3 4 5; do
  if [ ! -d "runs/release_34m_$stage/model" ]; then
    torchrun --nproc_per_node "$gpus" -m gcattn.cli train "examples/release_34m_$stage.yaml" \
      "training.gradient_accumulation=$((4 / gpus))" "$@" --resume
  fi
done
