"""Networks trained side by side: each does one whole iteration when called."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core.discovery.found import NoResidualBranchError
from ...core.planning.plan import Plan
from ...core.residual_drop_path import ResidualDropPath
from ...core.running.add_point import Action, AddPoint
from ...errors import UserError
from ...models.classifier import NoOwnDropPathError, make_classifier
from ...models.find import library_of
from ...training.runtime import memory_format
from .config import OURS, BenchConfig

NUM_CLASSES = 10


class NotOfThisModel(Exception):
    """A contender that the network does not have; the message says why."""


class Contender:
    """A network with its optimizer on one batch; `rdp` is None unless it trains by the method."""

    def __init__(self, name: str, config: BenchConfig, device: torch.device, batch_size: int | None = None):
        self.name = name
        self.config = config
        torch.manual_seed(config.seed)
        model = make_network(name, config).to(device)
        layout = memory_format(model, device, channels_last=config.channels_last)
        self.model: nn.Module = model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        self.rdp = self._method()
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.SGD
        options: dict[str, Any] = {} if config.optimizer == "adamw" else {"momentum": 0.9}
        options |= {"fused": True} if config.fused else {}
        self.optimizer = kind(self.model.parameters(), lr=1e-3, weight_decay=5e-4, **options)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.dtype == "fp16")
        shape = (batch_size or config.batch_size, 3, config.image_size, config.image_size)
        self.images = torch.randn(shape, device=device).contiguous(memory_format=layout)
        self.labels = torch.randint(NUM_CLASSES, shape[:1], device=device)
        if config.compile:
            self.model.compile()
            if self.rdp is not None:
                self.rdp.compile()

    def iteration(self) -> None:
        """Forward, backward, update, and on to the next plan."""
        self.scaler.scale(self.loss()).backward()
        self._before_update()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.rdp is not None:
            self.rdp.step()

    @property
    def plan(self) -> Plan | None:
        """Of the iteration that comes next."""
        return None if self.rdp is None else self.rdp.plan

    def rewind(self) -> None:
        """Back to the first plan; weights stay as trained."""
        _rewind(self.rdp)

    def autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.config.dtype == "fp16" else torch.bfloat16
        return torch.autocast(self.images.device.type, dtype, enabled=self.config.dtype != "float32")

    def loss(self) -> Tensor:
        with self.autocast():
            return F.cross_entropy(self.model(self.images), self.labels)

    def close(self) -> None:
        """Leave the network plain."""
        if self.rdp is not None:
            self.rdp.remove()

    def _method(self) -> ResidualDropPath | None:
        if self.name not in OURS and self.name != "rate_zero":
            return None
        rate = 0.0 if self.name == "rate_zero" else None
        return make_method(self.model, self.config, rate, **OURS.get(self.name, {}))

    def _before_update(self) -> None:
        pass


class Naive(Contender):
    """The same updates from a network that runs everything: what is dropped is multiplied by 0.

    Frozen gradients are computed, and thrown away before the optimizer sees them.
    """

    def __init__(self, config: BenchConfig, device: torch.device, batch_size: int | None = None):
        super().__init__("naive", config, device, batch_size)
        self.plans = make_method(copy.deepcopy(self.model).to("meta"), config)
        self.units = make_method(self.model, config, 0.0)
        self.factors = [1.0] * len(self.units.branches)
        self.actions = [self._multiply(index) for index in range(len(self.factors))]
        self.owners = {id(p): branch.name for branch in self.units.branches for p in branch.parameters()}

    def iteration(self) -> None:
        plan = self.plans.plan
        dropped = set(plan.dropped) if plan.kind == "drop_path" else set()
        for index, (branch, rate) in enumerate(zip(self.plans.branches, plan.drop_rates, strict=True)):
            kept = 1.0 if plan.kind == "dropped_part" else 1 / (1 - rate)
            self.factors[index] = 0.0 if branch.name in dropped else kept
        with self.units.acting(self.actions):
            super().iteration()
        self.plans.step()

    def rewind(self) -> None:
        _rewind(self.plans)

    def close(self) -> None:
        self.units.remove()

    @property
    def plan(self) -> Plan:
        return self.plans.plan

    def _multiply(self, index: int) -> Action:
        def multiplied(add_point: AddPoint, shortcut: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
            return add_point.add(shortcut, add_point.run(*inputs) * self.factors[index])

        return multiplied

    def _before_update(self) -> None:
        plan = self.plans.plan
        frozen = set(plan.dropped) if plan.kind == "drop_path" else {*plan.kept, None}
        for parameter in self.model.parameters():
            if self.owners.get(id(parameter)) in frozen:
                parameter.grad = None


def make_contender(name: str, config: BenchConfig, device: torch.device, batch_size: int | None = None) -> Contender:
    """Raises `NotOfThisModel` where the network has no such option."""
    return Naive(config, device, batch_size) if name == "naive" else Contender(name, config, device, batch_size)


def _rewind(rdp: ResidualDropPath | None) -> None:
    if rdp is not None:
        rdp.load_state_dict({**rdp.state_dict(), "iteration": 0, "cycle": None})


def make_method(model: nn.Module, config: BenchConfig, rate: float | None = None, **options: Any) -> ResidualDropPath:
    rate = config.rate if rate is None else rate
    try:
        return ResidualDropPath(model, rate, rate_over_depth=config.rate_over_depth, seed=config.seed, **options)
    except NoResidualBranchError as error:
        raise UserError(str(error)) from error


def make_network(name: str, config: BenchConfig) -> nn.Module:
    """The network as contender `name` has it, in training mode. Raises `NotOfThisModel` or `UserError`."""
    by_library = name in ("timm", "torchvision")
    if by_library and library_of(config.model) != name:
        raise NotOfThisModel(f"not a network of {name}")
    try:
        return make_classifier(
            config.model,
            in_channels=3,
            num_classes=NUM_CLASSES,
            image_size=config.image_size,
            depth=config.depth,
            width=config.width,
            own_drop_path_rate=config.rate if by_library else 0.0,
        ).model
    except NoOwnDropPathError as error:
        raise NotOfThisModel(str(error)) from error
