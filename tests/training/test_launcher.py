"""What a launcher asks for: FSDP2 becomes `shard`, and what `shard` has not is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from residualdroppath.errors import UserError
from residualdroppath.training.launcher import as_launched, require_no_sharding
from residualdroppath.training.recipe import TrainConfig, read_config

from .test_processes import free_port, launched

# As Accelerate 1.15 sets them for `--use_fsdp --fsdp_version 2` and nothing else.
BY_DEFAULT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
}


def test_fsdp2_of_the_launcher_is_shard() -> None:
    environ = dict(BY_DEFAULT)
    found = as_launched(TrainConfig(lr=0.3), environ)
    assert found == TrainConfig(lr=0.3, shard=True)
    require_no_sharding(environ)  # Accelerate is told nothing of it
    assert as_launched(found, environ) == found


def test_without_it_the_recipe_decides() -> None:
    for environ in ({}, {"ACCELERATE_USE_FSDP": "false", "FSDP_OFFLOAD_PARAMS": "true"}):
        for shard in (False, True):
            assert as_launched(TrainConfig(shard=shard), environ).shard is shard


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FSDP_VERSION", "1", "FSDP_VERSION must be 2 .* got 1"),
        ("FSDP_VERSION", None, "FSDP_VERSION must be 2 .* got 1"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "FSDP_RESHARD_AFTER_FORWARD must be true .* got false"),
        ("FSDP_OFFLOAD_PARAMS", "true", "FSDP_OFFLOAD_PARAMS must be false .* got true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "FSDP_ACTIVATION_CHECKPOINTING must be false"),
        ("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT", "FSDP_STATE_DICT_TYPE must be full_state_dict"),
        ("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP", "FSDP_AUTO_WRAP_POLICY must not be set"),
    ],
)
def test_what_shard_has_not_is_refused(variable: str, value: str | None, message: str) -> None:
    environ = {name: each for name, each in BY_DEFAULT.items() if name != variable}
    if value is not None:
        environ[variable] = value
    with pytest.raises(UserError, match=message):
        as_launched(TrainConfig(), environ)
    assert environ["ACCELERATE_USE_FSDP"] == "true"


def test_what_does_not_go_with_shards_is_refused_here_too() -> None:
    by_row = {"granularity": "sample", "freeze": "stop_gradient"}
    with pytest.raises(UserError, match=r"`granularity` .* with `shard`.*\(in the launcher, ACCELERATE_USE_FSDP\)"):
        as_launched(TrainConfig.model_validate(by_row), dict(BY_DEFAULT))


@pytest.mark.full
def test_accelerate_launch_with_fsdp2(tmp_path: Path) -> None:
    options = ["--use_fsdp", "--fsdp_version", "2", "--num_processes", "2", "--num_machines", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    ended = launched(["accelerate.commands.launch", *options], tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    assert "on 2 processes (cpu), weights split over them" in ended.stderr
    assert read_config(TrainConfig, tmp_path / "out/config.yaml").shard
