"""ResidualDroppath in the `Trainer` of Hugging Face transformers: one callback.

Iterations follow `TrainerState.global_step`: the plan is made when training begins, advances once per optimizer update
(`on_step_end`), and is saved in `trainer_state.json`, which every checkpoint has.
"""

# ruff: noqa: E402, transformers imports torchvision where there is one

from __future__ import annotations

from types import MethodType
from typing import Any

from accelerate.utils import convert_outputs_to_fp32, get_mixed_precision_context_manager
from torch import nn

from ..models.torchvision_ops import ensure_torchvision_ops

ensure_torchvision_ops()

from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.training_args import ParallelMode

from ..core.options import Options, make_options
from ..core.residual_drop_path import ResidualDropPath, is_followed

__all__ = ["ResidualDropPathCallback"]
STATE_KEY = "residual_drop_path"  # in `TrainerState.stateful_callbacks`


class ResidualDropPathCallback(TrainerCallback):
    """Trains the model of a `Trainer` by ResidualDroppath.

        >>> trainer = Trainer(model, args, train_dataset=data, callbacks=[ResidualDropPathCallback(0.1)])
        >>> trainer.train()

    Each `train()` begins at iteration 0, or at that of the checkpoint it resumes from, and leaves the plain model.
    Gradient accumulation, clipping, mixed precision, activation checkpointing, `torch_compile` and DDP need nothing
    else, but for DDP together with activation checkpointing: `ddp_find_unused_parameters=True`, or `add_to`.

    Args:
        drop_path_rate: the largest drop rate, in [0, 1).
        options: all options at once, instead of the rate and keywords.
        example: as for `ResidualDropPath`: a batch as the model is called with.
        **keywords: the options of `ResidualDropPath`. `rate_over_time` alone takes the updates of the whole training,
            `TrainerState.max_steps`, as `total_iterations`.

    Attributes:
        rdp: the `ResidualDropPath` of the training that runs, or ran last; None before the first.

    Raises:
        TypeError, ValueError: an unknown option, or one outside its allowed values.
    """

    rdp: ResidualDropPath | None

    def __init__(
        self, drop_path_rate: Any = None, *, options: Options | None = None, example: Any = None, **keywords: Any
    ):
        if drop_path_rate is not None:
            keywords["drop_path_rate"] = drop_path_rate
        self._options, self._keywords, self._example = options, keywords, example
        self._options_for(max_steps=1)  # raises for what is not allowed
        self._ddp_is_ready: bool | None = None  # None: not known
        self._mixed_precision: Any = None  # accelerate's forward of the model, while ours is beneath another
        self.rdp = None

    def add_to(self, trainer: Trainer) -> None:
        """Add this callback to a Trainer that is there, and switch on what DDP needs, whatever its arguments say.

        Raises:
            ValueError: the Trainer has such a callback, or trains in a form that cannot be followed.
        """
        if any(isinstance(each, ResidualDropPathCallback) for each in trainer.callback_handler.callbacks):
            raise ValueError("The Trainer has a ResidualDropPathCallback already; add one.")
        require_followable(trainer.args)
        if (handler := trainer.accelerator.ddp_handler) is not None:
            handler.find_unused_parameters = True
        self._ddp_is_ready = True
        trainer.add_callback(self)

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """The arguments of DDP are fixed from here on: refuse those that fail in the middle of training."""
        require_followable(args)
        if self._ddp_is_ready is None:
            self._ddp_is_ready = finds_unused_parameters(args, model)
        if not self._ddp_is_ready:
            raise ValueError(
                "DDP must look for parameters without a gradient, and this Trainer has switched that off: with "
                "activation checkpointing it does so by itself. Pass `ddp_find_unused_parameters=True` to "
                "TrainingArguments, or add the callback by `callback.add_to(trainer)`, which sets it."
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        """Weights and optimizer are loaded, the model is wrapped, and no forward has run."""
        self.on_init_end(args, state, control, model)
        self._leave_plain()  # after a training that was interrupted
        if is_followed(model):
            raise ValueError(
                "The model is already under a ResidualDropPath: of a second callback, of a training that was "
                "interrupted, or of your own. Add one ResidualDropPathCallback, and `remove()` the other: "
                "`callback.rdp.remove()`."
            )
        self._mixed_precision = take_off_mixed_precision(model)
        try:
            self.rdp = ResidualDropPath(model, options=self._options_for(state.max_steps), example=self._example)
        finally:
            if self._mixed_precision is not None:
                put_on_mixed_precision(model)
        if state.global_step > 0:
            self._load(self.rdp, state)
        if args.torch_compile:
            self.rdp.compile(backend=args.torch_compile_backend, mode=args.torch_compile_mode)
        self._save(self.rdp, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An optimizer update is done, gradients are zeroed; evaluation and saving come next."""
        if self.rdp is None:
            raise RuntimeError(
                "A training step ended that never began for this callback; add it before `trainer.train()`."
            )
        self.rdp.step()
        self._save(self.rdp, state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The best model, if asked for, is loaded: leave it plain."""
        self._leave_plain()

    def _leave_plain(self) -> None:
        if self.rdp is not None:
            self.rdp.remove()
            if self._mixed_precision is not None:
                self.rdp.model.forward, self._mixed_precision = self._mixed_precision, None

    def _options_for(self, max_steps: int) -> Options:
        keywords = self._keywords
        if keywords.get("rate_over_time") is not None:
            keywords = {"total_iterations": max_steps, **keywords}
        return make_options(self._options, keywords)

    @staticmethod
    def _save(rdp: ResidualDropPath, state: TrainerState) -> None:
        """In the state that the Trainer writes into each checkpoint."""
        state.stateful_callbacks[STATE_KEY] = rdp.state_dict()  # pyright: ignore

    @staticmethod
    def _load(rdp: ResidualDropPath, state: TrainerState) -> None:
        saved: Any = (state.stateful_callbacks or {}).get(STATE_KEY)  # pyright: ignore
        if saved is None:
            raise ValueError(
                f"The checkpoint of step {state.global_step} has no plan of ResidualDropPath: it was written without "
                "this callback. Resume without it, or load the checkpoint's weights into the model and begin a new "
                "training: `trainer.train()` without `resume_from_checkpoint`."
            )
        rdp.load_state_dict(saved)


def finds_unused_parameters(args: TrainingArguments, model: nn.Module) -> bool:
    """Whether DDP, if it wraps the model at all, looks for parameters without a gradient: the rule of `Trainer`."""
    if args.parallel_mode != ParallelMode.DISTRIBUTED or args.fsdp:
        return True
    if args.ddp_find_unused_parameters is not None or not isinstance(model, PreTrainedModel):
        return args.ddp_find_unused_parameters is not False
    return not any(  # the second names are those before transformers 5
        getattr(holder, new if hasattr(holder, new) else old, False)
        for holder, new, old in (
            (args, "activation_checkpointing", "gradient_checkpointing"),
            (model, "is_activation_checkpointing", "is_gradient_checkpointing"),
        )
    )


def take_off_mixed_precision(model: nn.Module) -> Any:
    """Set the forward that accelerate has wrapped for mixed precision; returns the wrapping one, None without any.

    The model is prepared before a callback sees it, and a forward that is set from outside cannot be traced.
    """
    if (original := vars(model).get("_original_forward")) is None:
        return None
    outer, model.forward = model.forward, original
    return outer


def put_on_mixed_precision(model: nn.Module) -> None:
    """Wrap the model's forward as accelerate does."""
    autocast: Any = get_mixed_precision_context_manager(True)
    forward: Any = model.forward
    model.forward = MethodType(convert_outputs_to_fp32(autocast(forward.__func__)), model)


def require_followable(args: TrainingArguments) -> None:
    """Raise `ValueError` for forms of training in which a frozen parameter would move, or a plan not be followed."""
    if args.n_gpu > 1:
        raise ValueError(
            f"`Trainer` would spread batches over {args.n_gpu} GPUs of one process by nn.DataParallel, whose copies of "
            "the model do not follow a plan; start one process for each GPU: `torchrun --nproc-per-node "
            f"{args.n_gpu} ...`, or let one be seen: `CUDA_VISIBLE_DEVICES=0`."
        )
    if args.deepspeed:
        raise ValueError(
            "`deepspeed` flattens parameters and fills absent gradients with zeros, so frozen ones would move by "
            "momentum and decay; use DDP or FSDP2."
        )
    if args.ddp_static_graph:
        raise ValueError(
            "`ddp_static_graph=True` needs the same parameters to learn in every iteration, here they change; leave "
            "it out."
        )
