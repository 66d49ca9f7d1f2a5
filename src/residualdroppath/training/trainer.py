"""The training of one network: iterations, epochs, evaluation and state."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.augment import channel_statistics, normalise, random_crop, random_mirror, with_channels
from ..data.images import ImageData, Split
from ..errors import UserError, first_line
from ..models.classifier import make_classifier
from .controls import always_trains_trunk, in_iteration, iterations_of_cycle, residual_drop_path
from .optimizer import learning_rate, make_optimizer
from .recipe import TrainConfig
from .runtime import derived_seed, memory_format, pick_device

# The trainer, mean loss and accuracy of the epoch so far, and its iterations so far.
OnProgress = Callable[["Trainer", Tensor, Tensor, int], None]


class Diverged(UserError):
    """The loss is no longer finite."""


class Trainer:
    """A network, its optimizer and, unless the method is plain, its `ResidualDropPath`.

    All randomness of an epoch comes from (seed, epoch): what is saved between epochs needs no
    generator state, and a resumed run repeats an uninterrupted one.
    """

    def __init__(self, config: TrainConfig, data: ImageData):
        self.config = config
        self.data = data
        self.device = pick_device(config.device)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        batches = len(data.train) // config.batch_size
        if batches < 1:
            raise UserError(
                f"`batch_size` must be at most the {len(data.train)} training images, got {config.batch_size}."
            )
        self.batches_per_epoch = batches
        self.iterations_per_batch = iterations_of_cycle(config) if config.cycle == "same_batch" else 1
        self.iterations_per_epoch = batches * self.iterations_per_batch
        self.total_iterations = config.iterations or config.epochs * self.iterations_per_epoch
        self.epochs = math.ceil(self.total_iterations / self.iterations_per_epoch)
        self.iteration = 0
        self.trunk_updates = 0

        torch.manual_seed(derived_seed(config.seed_of("init"), "model"))
        made = make_classifier(
            config.model,
            in_channels=data.channels,
            num_classes=data.num_classes,
            image_size=data.image_size,
            depth=config.depth,
            width=config.width,
            model_options=config.model_options,
        )
        self.channels = made.channels
        self.memory_format = memory_format(made.model, self.device, channels_last=config.channels_last)
        self.model: nn.Module = made.model.to(self.device).to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.rdp = residual_drop_path(self.model, config, self.total_iterations)
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")

        mean, deviation = channel_statistics(data.train.source)
        self.mean, self.deviation = torch.tensor(mean, device=self.device), torch.tensor(deviation, device=self.device)
        self.train_split = data.train.to(self.device)
        self.crop_padding = data.image_size // 8 if config.crop_padding is None else config.crop_padding
        self.mirror = data.mirrored if config.mirror is None else config.mirror

    @property
    def kind(self) -> str:
        """What the iteration in force does."""
        return "plain" if self.rdp is None else self.rdp.kind

    @property
    def trains_trunk(self) -> bool:
        """Whether the trunk learns in the iteration in force."""
        return self.rdp is None or self.kind == "drop_path" or always_trains_trunk(self.rdp.options)

    @property
    def lr(self) -> float:
        """Of the iteration in force."""
        factor = self.config.dropped_part_lr if self.kind == "dropped_part" else 1.0
        return factor * learning_rate(self.config.lr, self.config.warmup, self.iteration + 1, self.total_iterations)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The augmented batches of an epoch, float[batch, channels, size, size] and int64[batch]."""
        generator = torch.Generator().manual_seed(derived_seed(self.config.seed_of("order"), f"epoch {epoch}"))
        order = torch.randperm(len(self.train_split), generator=generator)
        size = self.config.batch_size
        indices = [order[start : start + size] for start in range(0, self.batches_per_epoch * size, size)]
        for images, labels in self.train_split.batches(indices):
            images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            if self.crop_padding:
                images = random_crop(images, self.crop_padding, generator)
            if self.mirror:
                images = random_mirror(images, generator)
            yield self.prepare(images), labels

    def prepare(self, images: Tensor) -> Tensor:
        ready = with_channels(normalise(images, self.mean, self.deviation), self.channels)
        return ready.contiguous(memory_format=self.memory_format)

    def train_iteration(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer update; the loss and the number of right answers, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        with in_iteration(self.rdp, self.config.method):
            with self.autocast():
                logits = self.model(images)
                loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
        self.trunk_updates += self.trains_trunk
        if self.rdp is not None:
            self.rdp.step()
        self.iteration += 1
        return loss.detach(), (logits.detach().argmax(1) == labels).sum()

    def train_epoch(self, epoch: int, on_progress: OnProgress) -> dict[str, Any]:
        """Train for one epoch; its mean loss, accuracy, seconds, and the share of them that went into making batches.

        Raises `UserError` when the loss diverges.
        """
        torch.manual_seed(derived_seed(self.config.seed_of("order"), f"dropout {epoch}"))
        self.model.train()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        started = last_look = asked = time.perf_counter()
        making_batches = 0.0
        num_iterations = min(self.iterations_per_epoch, self.total_iterations - self.iteration)
        done = 0
        for images, labels in self.batches(epoch):
            making_batches += time.perf_counter() - asked
            for _ in range(min(self.iterations_per_batch, num_iterations - done)):
                loss, correct = self.train_iteration(images, labels)
                done += 1
                totals += torch.stack([loss.double(), correct.double()])
            now = time.perf_counter()
            # To look at a value is to wait for the device: not at every iteration.
            if self.device.type == "cpu" or now - last_look > 0.5 or done == num_iterations:
                last_look = now
                self.require_finite(float(totals[0]), epoch)
                on_progress(self, totals[0] / done, totals[1] / (done * self.config.batch_size), done)
            asked = time.perf_counter()
            if done == num_iterations:
                break
        seconds = time.perf_counter() - started
        mean_loss, correct = (totals / num_iterations).tolist()
        images_per_epoch = num_iterations * self.config.batch_size
        return {
            "train_loss": mean_loss,
            "train_accuracy": correct / self.config.batch_size,
            "train_seconds": seconds,
            "images_per_second": images_per_epoch / seconds,
            "data_share": making_batches / seconds,
        }

    def require_finite(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss is no longer finite (epoch {epoch}, by iteration {self.iteration}). The checkpoint of the "
                f"epoch before, if any, is kept. Try a lower `lr` (now {self.config.lr:g}), a longer `warmup`, or "
                "`amp` bf16 or none."
            )

    @torch.no_grad()
    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean cross-entropy and accuracy of the network as it will be deployed."""
        self.model.eval()
        loss, correct = 0.0, 0
        indices = list(torch.arange(len(split)).split(4 * self.config.batch_size))
        for images, labels in split.batches(indices):
            labels = labels.to(self.device)
            with self.autocast():
                logits = self.model(self.prepare(images.to(self.device)))
            loss += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
        return loss / len(split), correct / len(split)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.config.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.amp == "bf16" else torch.float16)

    def state_dict(self, epoch: int) -> dict[str, Any]:
        """All but the weights."""
        return {
            "epoch": epoch,
            "iteration": self.iteration,
            "trunk_updates": self.trunk_updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rdp": None if self.rdp is None else self.rdp.state_dict(),
        }

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(weights)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.rdp is not None:
                self.rdp.load_state_dict(state["rdp"])
            self.iteration = int(state["iteration"])
            self.trunk_updates = int(state["trunk_updates"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"The checkpoint does not fit this model ({first_line(error)}); resume it with its own recipe."
            ) from error
