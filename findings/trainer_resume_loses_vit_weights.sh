#!/usr/bin/env bash
# transformers 5.23.0: `train(resume_from_checkpoint=...)` of a ViT goes on with random weights in the encoder.
#
# Input: ViTForImageClassification trained for 2 of 4 updates by `Trainer`, which saves; a new model and Trainer resume.
# Expected: training goes on from the weights of the checkpoint, as it does for BERT, or an error.
# Seen: checkpoints are written under other names ("vit.encoder.layer.0...") than the model has ("vit.layers.0..."), and
#   are loaded with strict=False: only embeddings and head arrive. Optimizer state and step count are restored, a log
#   line lists missing keys, training goes on. `from_pretrained` of the same checkpoint translates the names.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 transformers==5.23.0 accelerate==1.15.0
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback, TrainingArguments, ViTConfig, ViTForImageClassification

config = ViTConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8, patch_size=4
)
data = [{"pixel_values": torch.randn(3, 8, 8), "labels": row % 2} for row in range(16)]
arguments = TrainingArguments(
    "run", max_steps=4, save_steps=2, use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no"
)
Trainer(ViTForImageClassification(config), arguments, train_dataset=data).train()


class AtBegin(TrainerCallback):
    def on_train_begin(self, arguments, state, control, model=None, **_):
        self.step, self.weights = state.global_step, {n: p.detach().clone() for n, p in model.named_parameters()}


begin = AtBegin()
resumed = Trainer(ViTForImageClassification(config), arguments, train_dataset=data, callbacks=[begin])
resumed.train(resume_from_checkpoint="run/checkpoint-2")
saved = dict(ViTForImageClassification.from_pretrained("run/checkpoint-2").named_parameters())
other = [name for name, value in begin.weights.items() if not torch.equal(value, saved[name])]
print(f"resumed at step {begin.step}: {len(other)} of {len(saved)} parameters are not those of the checkpoint,")
print(f"{sum('.layers.' in name for name in other)} of them in the encoder, such as {other[0] if other else '-'}")
names = load_file("run/checkpoint-2/model.safetensors")
print("a name in the checkpoint's file:", next(name for name in names if "mlp" in name or "intermediate" in name))
as_described = begin.step == 2 and other and all(".layers." in name for name in other)
sys.exit(0 if as_described else "This has changed.")
PYTHON
