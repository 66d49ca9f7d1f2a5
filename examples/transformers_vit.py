"""ViT by the `Trainer` of transformers, under ResidualDroppath: scikit-learn's digits, with accumulation and bf16.

    python examples/transformers_vit.py

Weights are random; a run takes well under a minute on a CPU. Needs
`pip install 'residualdroppath[transformers]' scikit-learn`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from residualdroppath.integrations.transformers import ResidualDropPathCallback
from sklearn.datasets import load_digits
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

NUM_TRAINING = 1400  # of 1,797 images


def digits() -> list[dict[str, Any]]:
    """Images f32[1, 8, 8] in 0..1, with their labels."""
    bunch: Any = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    return [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, bunch.target, strict=True)]


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drop-path-rate", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/transformers_vit")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=96,
        num_labels=10,
    )
    data = digits()
    callback = ResidualDropPathCallback(options.drop_path_rate, rate_over_depth="uniform", schedule=(2, 1))
    trainer = Trainer(
        ViTForImageClassification(config),
        TrainingArguments(
            options.out,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=2,
            learning_rate=2e-3,
            bf16=options.bf16,
            use_cpu=not torch.accelerator.is_available(),
            eval_strategy="epoch",
            logging_strategy="epoch",
            save_strategy="no",
            seed=options.seed,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data[:NUM_TRAINING],
        eval_dataset=data[NUM_TRAINING:],
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train()
    print(callback.rdp)
    print(f"accuracy {trainer.evaluate()['eval_accuracy']:.3f}")


if __name__ == "__main__":
    main()
