#!/usr/bin/env bash
# accelerate 1.15.0 with torch 2.13.0: sharding that is asked for on CPUs is plain data parallelism, without a word.
#
# Input: `ACCELERATE_USE_FSDP=true` and `FSDP_VERSION=2`, what `accelerate launch --use_fsdp --fsdp_version 2` sets, in two
#   processes of gloo on CPUs. torch's own `fully_shard` works there.
# Expected: each process holds half of every parameter, or an error.
# Seen: the network is a DistributedDataParallel, each process holds all of it, and nothing is printed or raised.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0
cat > "$dir/two.py" <<'PYTHON'
import os
import warnings

import torch
from torch import distributed, nn

warnings.simplefilter("error")
os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_USE_CPU": "true"}

from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
model = nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
model, optimizer = accelerator.prepare(model, optimizer)
held = sum(parameter.numel() for parameter in model.parameters())
if accelerator.is_main_process:
    print(f"{accelerator.distributed_type.value}: {type(model).__name__}, {held} of 72 parameters in each process")

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

sharded = fully_shard(nn.Linear(8, 8), mesh=init_device_mesh("cpu", (2,)))
local = sum(parameter.to_local().numel() for parameter in sharded.parameters())
if accelerator.is_main_process:
    print(f"fully_shard: {local} of 72 parameters in each process")
changed = type(model).__name__ != "DistributedDataParallel" or held != 72 or local >= 72
distributed.barrier()
distributed.destroy_process_group()
raise SystemExit(changed)
PYTHON
"$dir/venv/bin/torchrun" --nproc-per-node 2 --master-port "${PORT:-29617}" "$dir/two.py" || { echo "This has changed."; exit 1; }
