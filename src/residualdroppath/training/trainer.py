"""The training of one network: iterations, epochs, evaluation and state."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.augment import channel_statistics, normalise, with_channels
from ..data.images import ImageData, Split
from ..errors import UserError, first_line
from ..models.classifier import make_classifier
from .batches import Augmentation, batches_of_epoch, rows_of
from .controls import always_trains_trunk, frozen_parameters, in_iteration, iterations_of_cycle, residual_drop_path
from .generators import generator_states, restore_generators
from .optimizer import learning_rate, make_optimizer
from .processes import Processes
from .recipe import TrainConfig
from .runtime import derived_seed, memory_format

# The trainer, mean loss and accuracy of the epoch so far, and its iterations so far.
OnProgress = Callable[["Trainer", Tensor, Tensor, int], None]


class Diverged(UserError):
    """The loss is no longer finite."""


@dataclasses.dataclass
class EpochSoFar:
    """Iterations of the epoch under way, float64[2] sums of their losses and right answers here, and seconds."""

    totals: Tensor
    iterations: int = 0
    seconds: float = 0.0
    making_batches: float = 0.0


class Trainer:
    """A network, its optimizer and, unless the method is plain, its `ResidualDropPath`.

    All randomness of an epoch starts from (seed, epoch); its state within an epoch is part of `state_dict`. Of several
    processes each has all weights, and computes its rows of every batch.
    """

    def __init__(self, config: TrainConfig, data: ImageData, processes: Processes | None = None):
        self.config = config
        self.data = data
        self.processes = processes or Processes(config.device)
        self.device = self.processes.device
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        batches = len(data.train) // config.batch_size
        if batches < 1:
            raise UserError(
                f"`batch_size` must be at most the {len(data.train)} training images, got {config.batch_size}."
            )
        if config.batch_size < (fewest := self.processes.count * config.accumulation):
            raise UserError(
                f"`batch_size` must be at least {fewest}, an image for each of {self.processes.count} processes and "
                f"{config.accumulation} parts (`accumulation`), got {config.batch_size}."
            )
        self.iterations_per_batch = iterations_of_cycle(config) if config.cycle == "same_batch" else 1
        self.iterations_per_epoch = batches * self.iterations_per_batch
        self.total_iterations = config.iterations or config.epochs * self.iterations_per_epoch
        self.epochs = math.ceil(self.total_iterations / self.iterations_per_epoch)
        self.iteration = 0
        self.trunk_updates = 0
        self.epoch = 0  # whole ones
        self.so_far = self._new_epoch()
        self._generators: list[dict[str, Tensor]] | None = None  # to go on with, in the middle of an epoch

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
        network = self.processes.with_synchronised_norms(made.model) if config.sync_batch_norm else made.model
        self.channels = made.channels
        self.memory_format = memory_format(network, self.device, channels_last=config.channels_last)
        self.model: nn.Module = network.to(self.device).to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        self.rdp = residual_drop_path(self.model, config, self.total_iterations)
        self.optimizer = make_optimizer(self.model, config)
        self.wrapped = self.processes.wrap(self.model, frozen_parameters(self.rdp, config.method))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")

        mean, deviation = channel_statistics(data.train.source)
        self.mean, self.deviation = torch.tensor(mean, device=self.device), torch.tensor(deviation, device=self.device)
        self.train_split = data.train.to(self.device)
        self.augmentation = Augmentation(
            data.image_size // 8 if config.crop_padding is None else config.crop_padding,
            data.mirrored if config.mirror is None else config.mirror,
        )

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
        config, iteration = self.config, self.iteration + 1
        return factor * learning_rate(config.lr, config.warmup, iteration, self.total_iterations, config.lr_over_time)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's rows of the augmented batches of an epoch from number `start` on.

        float[rows, channels, size, size] and int64[rows].
        """
        seed = derived_seed(self.config.seed_of("order"), f"epoch {epoch}")
        size, rows = self.config.batch_size, rows_of(self.config.batch_size, self.processes.rank, self.processes.count)
        for images, labels in batches_of_epoch(
            self.train_split,
            seed,
            size,
            self.augmentation,
            self.device,
            start=start,
            rows=rows,
            shuffle_buffer=self.config.shuffle_buffer,
        ):
            yield self.prepare(images), labels

    def prepare(self, images: Tensor) -> Tensor:
        ready = with_channels(normalise(images, self.mean, self.deviation), self.channels)
        return ready.contiguous(memory_format=self.memory_format)

    def train_iteration(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer update; the loss and the number of right answers, still on the device.

        The loss is that of this process's rows, weighted so that its mean over processes is that of the batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        with in_iteration(self.rdp, self.config.method):
            loss, correct = self._accumulate_gradients(images, labels)
            if self.config.clip_grad is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad()
        self.trunk_updates += self.trains_trunk
        if self.rdp is not None:
            self.rdp.step()
        self.iteration += 1
        return loss, correct

    def _accumulate_gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Forward and backward of each part of a batch; gradients are exchanged with those of the last."""
        losses, correct = [], []
        parts = list(zip(*(each.tensor_split(self.config.accumulation) for each in (images, labels)), strict=True))
        for number, (some_images, some_labels) in enumerate(parts, start=1):
            with self.processes.without_exchange(self.wrapped) if number < len(parts) else nullcontext():
                with self.autocast():
                    logits = self.wrapped(some_images)
                    loss = F.cross_entropy(logits, some_labels, label_smoothing=self.config.label_smoothing)
                if (weight := len(some_images) * self.processes.count / self.config.batch_size) != 1:
                    loss = loss * weight
                self.scaler.scale(loss).backward()
            losses.append(loss.detach())
            correct.append((logits.detach().argmax(1) == some_labels).sum())
        return sum(losses[1:], losses[0]), sum(correct[1:], correct[0])

    def train_epoch(
        self, epoch: int, on_progress: OnProgress, after_iteration: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Train for one epoch, or for what is left of it after `load_state_dict`.

        Its mean loss, accuracy, seconds, and the share of them that went into making batches; time in
        `after_iteration` does not count. Raises `UserError` when the loss diverges.
        """
        rank = f" process {self.processes.rank}" if self.processes.rank else ""
        torch.manual_seed(derived_seed(self.config.seed_of("order"), f"dropout {epoch}{rank}"))
        self.model.train()
        so_far = self.so_far
        num_iterations = min(self.iterations_per_epoch, self.total_iterations - self.iteration + so_far.iterations)
        if so_far.iterations < num_iterations:
            self._train_rest_of_epoch(epoch, num_iterations, on_progress, after_iteration)
        self.epoch, self.so_far, self._generators = epoch, self._new_epoch(), None
        mean_loss, correct = (self.processes.sum(so_far.totals) / num_iterations).tolist()
        return {
            "train_loss": mean_loss / self.processes.count,
            "train_accuracy": correct / self.config.batch_size,
            "train_seconds": so_far.seconds,
            "images_per_second": num_iterations * self.config.batch_size / so_far.seconds,
            "data_share": so_far.making_batches / so_far.seconds,
        }

    def _train_rest_of_epoch(
        self, epoch: int, num_iterations: int, on_progress: OnProgress, after_iteration: Callable[[], None]
    ) -> None:
        so_far = self.so_far
        start, begun = divmod(so_far.iterations, self.iterations_per_batch)
        counted = asked = last_look = time.perf_counter()
        for images, labels in self.batches(epoch, start):
            so_far.making_batches += time.perf_counter() - asked
            if self._generators is not None:  # only now: a loader that begins draws from them
                restore_generators(self._generators, self.processes.rank, self.device)
                self._generators = None
            for _ in range(min(self.iterations_per_batch - begun, num_iterations - so_far.iterations)):
                loss, correct = self.train_iteration(images, labels)
                so_far.iterations += 1
                so_far.totals += torch.stack([loss.double(), correct.double()])
                done = so_far.iterations
                now = time.perf_counter()
                # To look at a value is to wait for the device: not at every iteration.
                if self.device.type == "cpu" or now - last_look > 0.5 or done == num_iterations:
                    last_look = now
                    self.require_finite(float(so_far.totals[0]), epoch)
                    on_progress(self, so_far.totals[0] / done, so_far.totals[1] / (done * len(images)), done)
                    now = time.perf_counter()
                so_far.seconds += now - counted
                after_iteration()
                counted = time.perf_counter()
            begun = 0
            asked = time.perf_counter()
            if so_far.iterations == num_iterations:
                break

    def _new_epoch(self) -> EpochSoFar:
        return EpochSoFar(torch.zeros(2, dtype=torch.float64, device=self.device))

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether no iteration of the epoch under way is left."""
        return self.so_far.iterations == self.iterations_per_epoch or self.iteration == self.total_iterations

    def require_finite(self, loss: float, epoch: int, what: str = "loss is") -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"The {what} no longer finite (epoch {epoch}, by iteration {self.iteration}). The checkpoint "
                f"before, if any, is kept. Try a lower `lr` (now {self.config.lr:g}), a longer `warmup`, or "
                "`amp` bf16 or none."
            )

    @torch.no_grad()
    def require_finite_weights(self) -> None:
        """A checkpoint of others would go on to nothing."""
        largest = torch.stack(
            [parameter.abs().max().float() for parameter in self.model.parameters() if parameter.numel()]
        )
        self.require_finite(float(largest.max()), self.epoch, "weights are")

    @torch.no_grad()
    def evaluate(self, split: Split) -> tuple[float, float]:
        """Mean cross-entropy and accuracy of the network as it will be deployed, each image used exactly once."""
        self.model.eval()
        self.processes.share_buffers(self.model)
        loss, correct = 0.0, 0
        indices = list(torch.arange(len(split)).split(4 * self.config.batch_size))
        for images, labels in split.batches(indices[self.processes.rank :: self.processes.count]):
            labels = labels.to(self.device)
            with self.autocast():
                logits = self.model(self.prepare(images.to(self.device)))
            loss += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
        totals = torch.tensor([loss, correct], dtype=torch.float64, device=self.device)
        loss, correct = self.processes.sum(totals).tolist()
        return loss / len(split), correct / len(split)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.config.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.amp == "bf16" else torch.float16)

    def state_dict(self) -> dict[str, Any]:
        """All but the weights: what each process needs to go on after any iteration. Called by all processes."""
        return {
            "epoch": self.epoch,
            "iteration": self.iteration,
            "trunk_updates": self.trunk_updates,
            "so_far": dataclasses.asdict(self.so_far) | {"totals": self.processes.gather(self.so_far.totals.cpu())},
            "generators": self.processes.gather(generator_states(self.device)),
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
            self.epoch = int(state["epoch"])
            self.iteration = int(state["iteration"])
            self.trunk_updates = int(state["trunk_updates"])
            if "so_far" in state:  # of version 0.1.0: at the end of an epoch
                totals = self.processes.own_of(state["so_far"]["totals"]).to(self.device, copy=True)
                self.so_far = EpochSoFar(**state["so_far"] | {"totals": totals})
                self._generators = state["generators"] if self.so_far.iterations else None
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"The checkpoint does not fit this model ({first_line(error)}); resume it with its own recipe."
            ) from error
