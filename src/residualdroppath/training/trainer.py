"""The training of one network: iterations, epochs, evaluation and state."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ..data.augment import normalise, with_channels
from ..data.images import ImageData, Split
from ..errors import UserError, first_line
from .averaging import averaged, require_batch_norms
from .controls import always_trains_trunk, compile_network, frozen_parameters, in_iteration, residual_drop_path
from .divergence import largest_weight, require_finite
from .epoch import EpochSoFar
from .evaluation import Scores, evaluate
from .generators import generator_states, restore_generators
from .gradients import accumulate_gradients
from .learning_rate import Plateau
from .length import length_of
from .making import make_network
from .optimizer import learning_rate_of, make_optimizer
from .processes import Processes
from .recipe import TrainConfig
from .runtime import autocast, derived_seed, memory_format
from .sharding import load_optimizer, load_weights, whole
from .training_images import TrainingImages

# The trainer, mean loss and accuracy of the epoch so far, and its iterations so far.
OnProgress = Callable[["Trainer", Tensor, Tensor, int], None]


class Trainer:
    """A network, its optimizer and, unless the method is plain, its `ResidualDropPath`.

    All randomness of an epoch starts from (seed, epoch); its state within an epoch is part of `state_dict`. Of several
    processes each has all weights, or its part of them by `shard`, and computes its rows of every batch.
    """

    def __init__(self, config: TrainConfig, data: ImageData, processes: Processes | None = None):
        self.config = config
        self.data = data
        self.processes = processes or Processes(config.device)
        self.device = self.processes.device
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        self.length = length_of(config, len(data.train), self.processes.count)
        self.iteration = 0
        self.trunk_updates = 0
        self.epoch = 0  # whole ones
        self.so_far = EpochSoFar.new(self.device)
        self._generators: list[dict[str, Tensor]] | None = None  # to go on with, in the middle of an epoch

        self.made = made = make_network(config, data, self.processes.with_synchronised_norms)
        self.channels = made.channels
        self.memory_format = memory_format(made.model, self.device, channels_last=config.channels_last)
        self.model: nn.Module = made.model.to(self.device).to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]
        require_batch_norms(self.model, config)
        self.ema = averaged(self.model, config)  # of the plain network, so before anything acts on it
        self.rdp = residual_drop_path(self.model, config, self.length.total)
        if config.compile:
            compile_network(self.model, self.rdp)
        if config.shard:
            self.processes.split(self.model, self.ema, self.rdp)
        self.optimizer = make_optimizer(self.model, config)
        self.plateau = None
        if config.lr_over_time == "plateau":
            self.plateau = Plateau(config.decay_rate, config.patience, config.min_lr / config.lr)
        self.wrapped = self.processes.wrap(self.model, frozen_parameters(self.rdp, config.method))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.amp == "fp16")

        self.images = TrainingImages(config, data, self.processes, made.statistics)
        self.mean = torch.tensor(self.images.mean, device=self.device)
        self.deviation = torch.tensor(self.images.deviation, device=self.device)

    @property
    def total_iterations(self) -> int:
        return self.length.total

    @property
    def iterations_per_epoch(self) -> int:
        return self.length.per_epoch

    @property
    def epochs(self) -> int:
        return self.length.epochs

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
        return factor * self._lr(self.iteration)

    @property
    def last_lr(self) -> float:
        """Of the last iteration made, without the factor of `dropped_part` iterations."""
        return self._lr(self.iteration - 1)

    def _lr(self, iteration: int) -> float:
        """After so many iterations."""
        epoch = iteration // self.length.per_epoch
        factor = 1.0 if self.plateau is None else self.plateau.factor
        return factor * learning_rate_of(self.config, iteration + 1, self.length.total, epoch)

    def batches(self, epoch: int, start: int = 0, *, mixed: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's rows of the augmented batches of an epoch from number `start` on.

        float[rows, channels, size, size] and int64[rows], or shares of classes if images are `mixed`.
        """
        for images, labels in self.images.batches(epoch, self.prepare, start, mixed=mixed):
            yield images.contiguous(memory_format=self.memory_format), labels

    def prepare(self, images: Tensor) -> Tensor:
        ready = with_channels(normalise(images, self.mean, self.deviation), self.channels)
        return ready.contiguous(memory_format=self.memory_format)

    def train_iteration(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One optimizer update; the loss and the number of right answers, still on the device.

        The loss is that of this process's rows, weighted so that its mean over processes is that of the batch.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group.get("lr_scale", 1.0)  # a scale by `layer_decay`
        with in_iteration(self.rdp, self.config.method):
            loss, correct = accumulate_gradients(
                self.wrapped,
                images,
                labels,
                self.processes,
                self.scaler,
                parts=self.config.accumulation,
                batch_size=self.config.batch_size,
                label_smoothing=self.config.label_smoothing,
                autocast=self.autocast,
            )
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
        if self.ema is not None:
            self.ema.update(self.model, self.iteration)
        return loss, correct

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
        self.made.frozen.hold()
        so_far = self.so_far
        num_iterations = min(self.length.per_epoch, self.length.total - self.iteration + so_far.iterations)
        if so_far.iterations < num_iterations:
            self._train_rest_of_epoch(epoch, num_iterations, on_progress, after_iteration)
        self.epoch, self.so_far, self._generators = epoch, EpochSoFar.new(self.device), None
        return so_far.row(self.processes, self.config.batch_size)

    def _train_rest_of_epoch(
        self, epoch: int, num_iterations: int, on_progress: OnProgress, after_iteration: Callable[[], None]
    ) -> None:
        so_far = self.so_far
        start, begun = divmod(so_far.iterations, self.length.per_batch)
        counted = asked = last_look = time.perf_counter()
        for images, labels in self.batches(epoch, start):
            so_far.making_batches += time.perf_counter() - asked
            if self._generators is not None:  # only now: a loader that begins draws from them
                restore_generators(self._generators, self.processes.rank, self.device)
                self._generators = None
            for _ in range(min(self.length.per_batch - begun, num_iterations - so_far.iterations)):
                loss, correct = self.train_iteration(images, labels)
                so_far.add(loss, correct)
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

    @property
    def is_at_end_of_epoch(self) -> bool:
        """Whether no iteration of the epoch under way is left."""
        return self.so_far.iterations == self.length.per_epoch or self.iteration == self.length.total

    def require_finite(self, loss: float, epoch: int, what: str = "loss is") -> None:
        """Raises `Diverged`."""
        require_finite(loss, what, epoch=epoch, iteration=self.iteration, lr=self.config.lr)

    def require_finite_weights(self) -> None:
        """A checkpoint of others would go on to nothing."""
        [largest] = self.processes.largest(largest_weight(self.model))
        self.require_finite(largest, self.epoch, "weights are")

    def evaluate(self, split: Split, model: nn.Module | None = None) -> Scores:
        """Of the network, or of `model`."""
        return evaluate(
            self.model if model is None else model,
            split,
            self.prepare,
            self.processes,
            num_classes=self.data.num_classes,
            batch_size=4 * self.config.batch_size,
            autocast=self.autocast,
        )

    def validate(self) -> dict[str, float]:
        """Scores on validation images, of the average too, if there is one; a plateau goes by those of the network."""
        scores = self.evaluate(self.data.validation)
        if self.plateau is not None:
            self.plateau.note(scores.accuracy)
        found = scores.named("validation")
        if self.ema is not None:
            found |= self.evaluate(self.data.validation, self.ema.module).named("ema_validation")
        return found

    def autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.config.amp)

    def weights(self, model: nn.Module | None = None) -> dict[str, Tensor]:
        """Of the network, or of `model`, for the main process to write. Called by all processes."""
        return whole((self.model if model is None else model).state_dict(), keep=self.processes.is_main)

    def state_dict(self) -> dict[str, Any]:
        """All but the weights: what each process needs to go on after any iteration. Called by all processes."""
        return {
            "epoch": self.epoch,
            "iteration": self.iteration,
            "trunk_updates": self.trunk_updates,
            "so_far": self.so_far.state_dict(self.processes),
            "generators": self.processes.gather(generator_states(self.device)),
            "optimizer": whole(self.optimizer.state_dict(), keep=self.processes.is_main),
            "scaler": self.scaler.state_dict(),
            "rdp": None if self.rdp is None else self.rdp.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "ema": None if self.ema is None else self.weights(self.ema.module),
        }

    def load_state_dict(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        try:
            load_weights(self.model, weights)
            load_optimizer(self.optimizer, state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.rdp is not None:
                self.rdp.load_state_dict(state["rdp"])
            if self.ema is not None:
                load_weights(self.ema.module, state["ema"])
            if self.plateau is not None:
                self.plateau.load_state_dict(state["plateau"])
            self.epoch = int(state["epoch"])
            self.iteration = int(state["iteration"])
            self.trunk_updates = int(state["trunk_updates"])
            if "so_far" in state:  # of version 0.1.0: at the end of an epoch
                self.so_far = EpochSoFar.of_state(state["so_far"], self.processes)
                self._generators = state["generators"] if self.so_far.iterations else None
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"The checkpoint does not fit this model ({first_line(error)}); resume it with its own recipe."
            ) from error
