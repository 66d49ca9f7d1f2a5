"""What a launcher asks for by variables of the environment: taken over where a recipe has the same, or refused.

`accelerate launch --use_fsdp` sets `ACCELERATE_USE_FSDP` and one `FSDP_...` variable for each of its settings.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from ..errors import UserError
from .recipe import TrainConfig, checked

FSDP = "ACCELERATE_USE_FSDP"
SHARDING = (FSDP, "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")
# What `shard` does, by the launcher's settings: values allowed, and the option of the launcher that says otherwise.
AS_SHARD_DOES = {
    "FSDP_VERSION": ("2",),
    "FSDP_RESHARD_AFTER_FORWARD": ("true", ""),
    "FSDP_OFFLOAD_PARAMS": ("false", ""),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", ""),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": ("false", ""),
    "FSDP_STATE_DICT_TYPE": ("full_state_dict", ""),
    "FSDP_AUTO_WRAP_POLICY": ("",),
    "FSDP_TRANSFORMER_CLS_TO_WRAP": ("",),
    "FSDP_IGNORED_MODULES": ("",),
}
# Choices of the launcher that are the recipe's here, or not supported.
OF_THE_RECIPE = {"ACCELERATE_MIXED_PRECISION": "give `amp`", "ACCELERATE_DYNAMO_BACKEND": "leave it out"}


def as_launched(config: TrainConfig, environ: MutableMapping[str, str] | None = None) -> TrainConfig:
    """`config`, with `shard` where the launcher asks for FSDP2. Raises `UserError` for settings that `shard` has not.

    Accelerate itself is then told nothing of FSDP: it would do DDP on CPUs, and on GPUs split the network once more.
    """
    environ = os.environ if environ is None else environ
    if not _is_on(environ, FSDP):
        return config
    for variable, allowed in AS_SHARD_DOES.items():
        default = "1" if variable == "FSDP_VERSION" else ""
        if (value := environ.get(variable, default)).lower() not in allowed:
            wanted = f"must be {allowed[0]}" if allowed[0] else "must not be set"
            raise UserError(
                f"{variable} {wanted} with `accelerate launch --use_fsdp`, got {value}: it stands for `shard`, which "
                "splits the blocks of residual branches and writes whole checkpoints. Change the setting, or launch "
                "with --multi_gpu and give `shard`."
            )
    sharded = checked(
        lambda: TrainConfig.model_validate({**config.model_dump(), "shard": True}), f"the launcher, {FSDP}"
    )
    environ[FSDP] = "false"
    return sharded


def require_no_sharding(environ: MutableMapping[str, str]) -> None:
    """Raises `UserError` for sharding by the launcher that was not taken over."""
    for variable in SHARDING:
        if _is_on(environ, variable):
            raise UserError(
                f"{variable} must be false, got {environ[variable]} from the launcher: to split weights over processes "
                "`rdp train` has `shard` (FSDP2); launch with --multi_gpu, or with torchrun."
            )


def require_choices_of_recipe(environ: MutableMapping[str, str]) -> None:
    """Raises `UserError` for a choice that the launcher leaves to the recipe here."""
    for variable, instead in OF_THE_RECIPE.items():
        if (value := environ.get(variable, "no")).lower() != "no":
            raise UserError(f"{variable} must be no, got {value} from the launcher; {instead}.")


def _is_on(environ: MutableMapping[str, str], variable: str) -> bool:
    return environ.get(variable, "false").lower() in ("true", "1", "yes")
