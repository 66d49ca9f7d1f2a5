"""ResidualDroppath as a callback of Lightning's `Trainer`, of the package `lightning` or `pytorch_lightning`."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

from ..core.options import Options, make_options
from ..core.residual_drop_path import ResidualDropPath

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError as missing:
        try:
            from pytorch_lightning import Callback
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "`residualdroppath.integrations.lightning` needs `lightning` or `pytorch_lightning`: "
                "pip install 'residualdroppath[lightning]'"
            ) from missing

__all__ = ["ResidualDropPathCallback"]
# These put parameters of several layers together, or own their gradients: frozen ones would get zeros, which move them.
REFUSED_STRATEGIES = ("FSDPStrategy", "DeepSpeedStrategy")


class ResidualDropPathCallback(Callback):
    """Trains a network of a `LightningModule` by ResidualDroppath.

        >>> trainer = Trainer(callbacks=[ResidualDropPathCallback(0.1)])
        >>> trainer.fit(module)

    `rdp`, the `ResidualDropPath`, is made when a fit begins, after the module's `setup` and `configure_model`. It steps
    at the end of each batch in which an optimizer that holds parameters of the network has made its step, and is
    removed from the network when the fit ends. Its state is in every checkpoint that the trainer writes after that
    step, and is restored with `fit(ckpt_path=...)`. A further fit of the same network goes on with the plan where the
    last one ended; one of another network begins anew.

    Args:
        drop_path_rate: as all keywords, an option of `ResidualDropPath`.
        module: path of the network in the `LightningModule`, such as `"backbone"`. By default the child that holds all
            its parameters, else the `LightningModule` itself.
        example: a batch as the network is called with, see `ResidualDropPath`.
        options: all options together, in the place of keywords.

    Raises:
        ValueError: an option outside its allowed values; when a fit begins, no module of that path, or a strategy that
            does not go with parameters that get no gradient.
        NoResidualBranchError: when a fit begins, no residual branch was found.
    """

    def __init__(
        self,
        drop_path_rate: Any = None,
        *,
        module: str | None = None,
        example: Any = None,
        options: Options | None = None,
        **keywords: Any,
    ):
        if drop_path_rate is not None:
            keywords["drop_path_rate"] = drop_path_rate
        self.options: Options = make_options(options, keywords)
        self.module = module
        self.example = example
        self.rdp: ResidualDropPath | None = None
        self._acting = False
        self._updated = False  # an optimizer has stepped, `rdp` has not
        self._loaded: dict[str, Any] | None = None  # of a checkpoint, which comes before `rdp` is made

    @property
    def state_key(self) -> str:
        return self._generate_state_key(module=self.module)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._updated, self._loaded = False, None
        if stage == "fit" and self.options.may_drop:
            allow_unused_parameters(trainer.strategy)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = find_network(pl_module, self.module)
        before = self.rdp.state_dict() if self.rdp is not None and self.rdp.model is network else None
        self._remove()  # where a fit before has ended without a word to its callbacks
        if self.options.may_drop:
            require_unused_parameters_allowed(trainer.strategy.model)
        self.rdp = ResidualDropPath(network, options=self.options, example=self.example)
        self._acting = True
        if (state := self._loaded or before) is not None:
            self.rdp.load_state_dict(state)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: optim.Optimizer
    ) -> None:
        assert self.rdp is not None
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        self._updated |= any(id(parameter) in held for parameter in self.rdp.model.parameters())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.rdp is not None
        if self._updated:
            self._updated = False
            self.rdp.step()
        if self.rdp.iteration == 1:
            warn_of_unseen_call(self.rdp, pl_module)

    def state_dict(self) -> dict[str, Any]:
        if self.rdp is None:
            return {}
        state = self.rdp.state_dict()
        state["iteration"] += self._updated  # of a checkpoint that is written before the end of the batch
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict  # forgotten when a fit begins: of a checkpoint to be evaluated nothing is taken over
        if self._acting and self.rdp is not None:
            self.rdp.load_state_dict(state_dict)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._remove()

    def _remove(self) -> None:
        """The network as it was; `rdp` stays, for its state and the branches that it has found."""
        if self.rdp is not None:
            self.rdp.remove()
        self._acting = False


def find_network(pl_module: LightningModule, path: str | None) -> nn.Module:
    """The module at `path`; with None the child that holds all parameters, whichever call it is that reaches it."""
    if path is not None:
        try:
            return pl_module.get_submodule(path)
        except AttributeError:
            names = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(
                f"`module` must be the path of a module in {type(pl_module).__name__}, got {path!r}; "
                f"its children are {names or 'none'}."
            ) from None
    holders = [child for child in pl_module.children() if next(child.parameters(), None) is not None]
    alone = len(holders) == 1 and next(pl_module.parameters(recurse=False), None) is None
    return holders[0] if alone else pl_module


def allow_unused_parameters(strategy: Any) -> None:
    """Before DistributedDataParallel wraps: let it look for parameters without gradient, unless that was refused."""
    if (name := type(strategy).__name__) in REFUSED_STRATEGIES:
        raise ValueError(
            f"ResidualDropPathCallback does not go with {name}, which does not leave gradients of frozen parameters "
            "None; use `Trainer(strategy='ddp_find_unused_parameters_true')`."
        )
    given = getattr(strategy, "_ddp_kwargs", None)
    if isinstance(given, dict) and not given.get("static_graph"):  # which is refused when it has wrapped
        given.setdefault("find_unused_parameters", True)


def require_unused_parameters_allowed(wrapped: Any) -> None:
    """Raise `ValueError` for a DistributedDataParallel that waits for gradients of all parameters."""
    if not isinstance(wrapped, DistributedDataParallel):
        return
    if wrapped.static_graph:
        raise ValueError(
            "DistributedDataParallel must not take the graph of the first iteration for that of all, got "
            "static_graph=True; use `Trainer(strategy='ddp_find_unused_parameters_true')`."
        )
    if not wrapped.find_unused_parameters:
        raise ValueError(
            "DistributedDataParallel must look for parameters that get no gradient, got find_unused_parameters=False; "
            "use `Trainer(strategy='ddp_find_unused_parameters_true')`."
        )


def warn_of_unseen_call(rdp: ResidualDropPath, pl_module: LightningModule) -> None:
    """After the first training step: parts of the network may hold branches that its call would have shown."""
    itself = type(rdp.model).__name__  # which stands there for its path
    not_followed = [path for path in rdp.discovery.untraceable if path != itself]
    if rdp.discovery.needs_call and not_followed:
        warnings.warn(
            f"The first training step has not called {itself} itself, which would show the branches "
            f"of {', '.join(not_followed[:3])}{', ...' if len(not_followed) > 3 else ''}. Name the module that "
            "`training_step` calls, ResidualDropPathCallback(module=...): children of "
            f"{type(pl_module).__name__} are {', '.join(name for name, _ in pl_module.named_children())}.",
            stacklevel=2,
        )
