#!/usr/bin/env bash
# transformers 5.23.0: accumulation multiplies the gradients of BertForSequenceClassification, not those of ViT.
#
# Input: `Trainer`, one update on the same 8 rows without dropout: as one batch of 8, and as 4 micro-batches of 2.
# Expected: the same gradient, as accumulation is documented, and as ViTForImageClassification has it.
# Seen: with BERT it is 4 times as large. `forward` accepts keyword arguments, so `Trainer` passes the number of items
#   and does not divide; BERT computes its mean loss itself and takes no notice of the number. With several processes
#   the loss is multiplied by their number for the same reason.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.3.5 transformers==5.23.0 accelerate==1.15.0
cd "$dir"
HF_HUB_OFFLINE=1 "$dir/venv/bin/python" -W ignore - <<'PYTHON'
import sys

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

shared = dict(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
    hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)


class Norm(TrainerCallback):
    def on_pre_optimizer_step(self, *_, model=None, **__):
        gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        self.norm = torch.cat(gradients).norm().item()


def norm_of_gradient(name, rows, micro_batches):
    torch.manual_seed(0)
    if name == "bert":
        model = BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, **shared))
        data = [{"input_ids": torch.randint(20, (8,)), "labels": row % 2} for row in range(8)]
    else:
        model = ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, **shared))
        data = [{"pixel_values": torch.randn(3, 8, 8), "labels": row % 2} for row in range(8)]
    arguments = TrainingArguments(
        "run", max_steps=1, per_device_train_batch_size=rows, gradient_accumulation_steps=micro_batches,
        max_grad_norm=0, use_cpu=True, report_to=[], disable_tqdm=True, logging_strategy="no", save_strategy="no",
    )
    norm = Norm()
    Trainer(model, arguments, train_dataset=data, callbacks=[norm]).train()
    return norm.norm


ratios = {name: norm_of_gradient(name, 2, 4) / norm_of_gradient(name, 8, 1) for name in ("bert", "vit")}
for name, ratio in ratios.items():
    print(f"{name:4}  gradient of 4 micro-batches of 2 rows, of that of one batch of 8: {ratio:.3f}")
sys.exit(0 if abs(ratios["bert"] - 4) < 0.01 and abs(ratios["vit"] - 1) < 0.01 else "This has changed.")
PYTHON
