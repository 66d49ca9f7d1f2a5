"""Contract 8: a resumed training equals an uninterrupted one, bit for bit, mid-cycle too."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from residualdroppath import ResidualDropPath

from .stepping import assert_equal, buffers_of, forward_backward, parameters_of
from .tiny_models import TinyModel, some_models

OPTIONS: list[dict[str, Any]] = [
    {},
    {"freeze": "stop_gradient", "granularity": "sample", "frozen_norm": "running"},
    {"schedule": (2, 3), "rate_over_depth": "uniform", "scale_by_keep": False},
    {"schedule": "random", "frozen_norm": "batch", "seed": 5},
    {"rate_over_time": "warmup", "total_iterations": 40, "train_trunk": True},
    {"schedule": (3, 1), "trains": "union", "draw": "balanced", "empty_draw": "plain"},
]


class Training:
    def __init__(self, tiny: TinyModel, options: dict[str, Any]):
        self.tiny = tiny
        self.model = tiny.build()
        self.rdp = ResidualDropPath(self.model, 0.5, **options)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)

    def run(self, num_iterations: int) -> None:
        for _ in range(num_iterations):
            iteration = self.rdp.iteration
            forward_backward(self.model, self.tiny.inputs(seed=iteration), seed=iteration)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.rdp.step()

    def save(self) -> io.BytesIO:
        file = io.BytesIO()
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "rdp")}
        torch.save(state, file)
        file.seek(0)
        return file

    def load(self, file: io.BytesIO) -> None:
        state = torch.load(file, weights_only=True)
        for name in ("model", "optimizer", "rdp"):
            getattr(self, name).load_state_dict(state[name])


@some_models("timm_basic", "two_adds", "dropout")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("interrupted_at", [2, 3])
@pytest.mark.pairs
def test_resumed_equals_uninterrupted(tiny: TinyModel, options: dict[str, Any], interrupted_at: int) -> None:
    whole, first, second = (Training(tiny, options) for _ in range(3))
    whole.run(6)
    first.run(interrupted_at)
    second.run(1)  # what it did before loading must not matter
    second.load(first.save())
    assert second.rdp.plan == first.rdp.plan
    second.run(6 - interrupted_at)
    assert second.rdp.plan == whole.rdp.plan
    assert_equal(parameters_of(second.model), parameters_of(whole.model), "parameters")
    assert_equal(buffers_of(second.model), buffers_of(whole.model), "buffers")
    assert_equal(second.optimizer.state_dict()["state"], whole.optimizer.state_dict()["state"], "optimizer")
    assert all(parameter.requires_grad for parameter in second.model.parameters())


@some_models("own_add")
def test_gradients_of_what_the_loaded_plan_freezes_are_cleared(tiny: TinyModel) -> None:
    model = tiny.build()
    rdp = ResidualDropPath(model, 0.5)
    state = {**rdp.state_dict(), "iteration": 1}
    forward_backward(model, tiny.inputs())
    rdp.load_state_dict(state)
    assert rdp.kind == "dropped_part"
    owners = tiny.owners(model)
    frozen = [p for name, p in model.named_parameters() if owners[name] not in rdp.plan.dropped]
    assert frozen and all(parameter.grad is None for parameter in frozen)


@some_models("own_add")
@pytest.mark.parametrize(
    ("name", "value", "saved"),
    [
        ("drop_path_rate", 0.2, 0.5),
        ("freeze", "stop_gradient", "parameters"),
        ("schedule", (2, 1), [1, 1]),
        ("seed", 1, 0),
        ("train_trunk", True, False),
    ],
)
def test_other_options_are_refused(tiny: TinyModel, name: str, value: Any, saved: Any) -> None:
    state = ResidualDropPath(tiny.build(), 0.5).state_dict()
    other = ResidualDropPath(tiny.build(), **{"drop_path_rate": 0.5, name: value})
    with pytest.raises(ValueError, match=f"saved with {name}=") as raised:
        other.load_state_dict(state)
    assert repr(saved) in str(raised.value) and "same options" in str(raised.value)


@some_models("own_add")
def test_another_model_and_another_kind_of_state_are_refused(tiny: TinyModel) -> None:
    from .tiny_models import BY_NAME

    rdp = ResidualDropPath(tiny.build())
    with pytest.raises(ValueError, match=r"saved for 6 branches \(blocks.0.attn, .*this model has 3"):
        rdp.load_state_dict(ResidualDropPath(BY_NAME["two_adds"].build()).state_dict())
    with pytest.raises(ValueError, match="lacks .*'iteration'"):
        rdp.load_state_dict({"branches": [], "options": {}})


@some_models("own_add")
def test_a_callable_rate_is_compared_by_name_and_values(tiny: TinyModel) -> None:
    def falling(progress: float) -> float:
        return 1 - progress

    def rising(progress: float) -> float:
        return progress

    rdps = [ResidualDropPath(tiny.build(), rate_over_time=f, total_iterations=9) for f in (falling, falling, rising)]
    rdps[1].load_state_dict(rdps[0].state_dict())
    with pytest.raises(ValueError, match="saved with rate_over_time=the function .*falling, this one has .*rising"):
        rdps[2].load_state_dict(rdps[0].state_dict())


@some_models("own_add")
def test_training_may_become_longer_but_not_shorter(tiny: TinyModel) -> None:
    def under(total: int) -> ResidualDropPath:
        return ResidualDropPath(tiny.build(), rate_over_time="warmup", total_iterations=total)

    state = under(40).state_dict()
    under(50).load_state_dict(state)
    with pytest.raises(ValueError, match="saved with total_iterations=40, this one has 30"):
        under(30).load_state_dict(state)


@some_models("own_add")
def test_options_that_an_earlier_version_lacked_had_their_defaults(tiny: TinyModel) -> None:
    state = ResidualDropPath(tiny.build()).state_dict()
    earlier = {key: value for key, value in state.items() if key != "format"}
    earlier["options"] = {name: value for name, value in state["options"].items() if name != "exclude"}
    ResidualDropPath(tiny.build()).load_state_dict(earlier)
    with pytest.raises(ValueError, match=r"saved with exclude=\[\], this one has \['blocks.0'\]"):
        ResidualDropPath(tiny.build(), exclude="blocks.0").load_state_dict(earlier)


@some_models("own_add")
@pytest.mark.parametrize(
    "change", [{"format": 99}, {"iteration": -1}, {"iteration": 1.0}, {"iteration": True}], ids=str
)
def test_states_that_make_no_sense_are_refused(tiny: TinyModel, change: dict[str, Any]) -> None:
    rdp = ResidualDropPath(tiny.build())
    with pytest.raises(ValueError, match=f"{next(iter(change))}.*{next(iter(change.values()))}"):
        rdp.load_state_dict({**rdp.state_dict(), **change})
