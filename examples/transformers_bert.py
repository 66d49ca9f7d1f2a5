"""BERT by the `Trainer` of transformers, under ResidualDroppath: which of two Markov chains wrote a sequence.

    python examples/transformers_bert.py
    torchrun --nproc-per-node 2 examples/transformers_bert.py

Weights are random, the data is made here, a run takes well under a minute on a CPU. Needs
`pip install 'residualdroppath[transformers]'`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from residualdroppath.integrations.transformers import ResidualDropPathCallback
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

TOKENS, LENGTH = 20, 24


def sequences(count: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Rows of two chains whose transition probabilities differ, labelled by chain."""
    chains = torch.rand(2, TOKENS, TOKENS, generator=torch.Generator().manual_seed(0)).pow(4)
    labels = torch.randint(2, (count,), generator=generator)
    steps = [torch.randint(TOKENS, (count,), generator=generator)]
    while len(steps) < LENGTH:
        steps.append(torch.multinomial(chains[labels, steps[-1]], 1, generator=generator)[:, 0])
    return [{"input_ids": row, "labels": int(label)} for row, label in zip(torch.stack(steps, 1), labels, strict=True)]


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drop-path-rate", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/transformers_bert")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LENGTH,
    )
    generator = torch.Generator().manual_seed(options.seed)
    callback = ResidualDropPathCallback(options.drop_path_rate)
    trainer = Trainer(
        BertForSequenceClassification(config),
        TrainingArguments(
            options.out,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=64,
            learning_rate=2e-3,
            eval_strategy="epoch",
            save_strategy="epoch",
            logging_strategy="epoch",
            save_total_limit=1,
            seed=options.seed,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=sequences(2000, generator),
        eval_dataset=sequences(500, generator),
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=options.resume)
    print(callback.rdp)
    print(f"accuracy {trainer.evaluate()['eval_accuracy']:.3f}")


if __name__ == "__main__":
    main()
