"""The model's own drop path: what is found of it, and that it can be switched off and on unseen."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from timm.layers.drop import DropBlock2d, DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from residualdroppath import ResidualDropPath
from residualdroppath.core.discovery.own_drop_path import (
    OwnDropPath,
    find_own_drop_path,
    restore,
    stacks_of,
    switch_off,
    switched_off,
)

from .drop_path_models import MODELS, DropPathModel, every_model, with_drop_path
from .finding import block


@every_model
def test_what_is_on_is_found(named: DropPathModel) -> None:
    found = find_own_drop_path(named.model)
    assert {f"{own.path}.{own.attribute}": own.rate for own in found} == pytest.approx(named.own, abs=1e-7)
    for own in found:
        assert vars(own.holder)[own.attribute] == own.rate


def test_holders_and_kinds() -> None:
    built = {model.name: model.model for model in MODELS if model.name.split()[1] in ("beit", "levit", "wav2vec2")}
    beit, levit, wav2vec2 = (find_own_drop_path(model)[0] for model in built.values())
    assert beit.kind == "module" and beit.holder is built["transformers beit"].get_submodule(beit.path)
    assert levit.kind == "block" and levit.holder is built["transformers levit"].get_submodule(levit.path)
    assert wav2vec2.kind == "layerdrop" and wav2vec2.holder is built["transformers wav2vec2"].config
    assert stacks_of(built["transformers wav2vec2"], wav2vec2) == [
        built["transformers wav2vec2"].get_submodule("encoder")
    ]


def drop_path_class(name: str, attribute: str) -> type[nn.Module]:
    def make(self: nn.Module, rate: Any = 0.1) -> None:
        nn.Module.__init__(self)
        setattr(self, attribute, rate)

    return type(name, (nn.Module,), {"__init__": make, "forward": lambda self, x: x})


@pytest.mark.parametrize(
    "attribute", ["drop_prob", "p", "drop_path_prob", "drop_path_rate", "drop_rate", "prob", "rate"]
)
@pytest.mark.parametrize(
    "name", ["DropPath", "Droppath", "MyDropPath", "DropPath2d", "StochasticDepth", "DropConnect", "Dropsample"]
)
def test_modules_of_such_names_are_found_in_any_library(name: str, attribute: str) -> None:
    drop_path = drop_path_class(name, attribute)
    model = nn.Sequential(drop_path(0.3), nn.Linear(2, 2), drop_path(0), drop_path(None))
    assert find_own_drop_path(model) == (OwnDropPath("0", model[0], attribute, 0.3, "module"),)
    model[2].__dict__[attribute] = 1  # an integer is a rate too
    assert [own.rate for own in find_own_drop_path(model)] == [0.3, 1.0]


@pytest.mark.parametrize(
    ("attribute", "value", "shown"),
    [
        ("keep_prob", 0.9, "has none of them"),
        ("p", "0.1", "has p='0.1'"),
        ("p", [0.1], "has p=[0.1]"),
        ("p", True, "has p=True"),
    ],
)
def test_a_drop_path_that_cannot_be_switched_off_is_an_error(attribute: str, value: Any, shown: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), drop_path_class("DropPath", attribute)(value))
    with pytest.raises(ValueError) as raised:
        find_own_drop_path(model)
    for part in ("drop_prob, p, ", "1 (DropPath)", shown, "nn.Identity()"):
        assert part in str(raised.value)


class DropConnect(nn.Linear):
    """Of single weights, as the name once meant."""

    p = 0.1


class LayerThatReads(nn.Module):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.f = nn.Linear(2, 2)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.f(x))

    def drop(self: Any, x: Tensor) -> Tensor:
        rates = (lambda: (self.drop_path_rate, self.drop_connect_rate))()
        return x * self.stochastic_depth_prob * self.sample_drop_ratio * sum(rates)

    def make_layers(self: Any) -> Any:
        return self._drop_path_prob, self.drop_path


def test_rates_of_blocks_count_where_the_forward_reads_them() -> None:
    read = {"drop_path_rate": 0.1, "drop_connect_rate": 0.2, "stochastic_depth_prob": 0.3, "sample_drop_ratio": 0.4}
    others = {"_drop_path_prob": 0.5, "drop_path": 0.6, "dropout_rate": 0.7, "droppath_rate": 0.8}
    model = nn.Sequential(LayerThatReads(**read, **others), LayerThatReads(drop_path_rate=None, drop_connect_rate=True))
    assert {own.attribute: own.rate for own in find_own_drop_path(model)} == read
    assert {(own.path, own.kind) for own in find_own_drop_path(model)} == {("0", "block")}


class Stack(nn.Module):
    encoder_layerdrop: float
    config: Any

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and torch.rand(()) < self.encoder_layerdrop):
                x = layer(x)
        return x


class StackOfConfig(Stack):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and torch.rand(()) < self.config.layerdrop):
                x = layer(x)
        return x


class OwnBeforeConfig(Stack):
    layerdrop: float

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layerdrop * self.config.scale


class Config:
    def __init__(self, layerdrop: float) -> None:
        self.layerdrop = layerdrop

    def __setattr__(self, name: str, value: Any) -> None:
        assert name not in vars(self), "configs may refuse what they are given"
        super().__setattr__(name, value)


def test_layerdrop_counts_where_the_forward_reads_it() -> None:
    config = Config(0.2)
    model = nn.ModuleList([Stack(encoder_layerdrop=0.1, decoder_layerdrop=0.3, config=config), Stack(layerdrop=0.3)])
    assert [(own.path, own.attribute, own.rate) for own in find_own_drop_path(model)] == [
        ("0", "encoder_layerdrop", 0.1)
    ]
    others = StackOfConfig(config=Config(0.0), encoder_layerdrop=0.4), OwnBeforeConfig(config=config, layerdrop=0.0)
    model.extend([StackOfConfig(config=config), StackOfConfig(config=config), *others])
    own = find_own_drop_path(model)
    assert own[1:] == (OwnDropPath("2", config, "layerdrop", 0.2, "layerdrop"),)  # of two stacks, once
    assert [stacks_of(model, one) for one in own] == [[model[0]], [model[2], model[3]]]


class LayerDropModuleList(nn.ModuleList):
    p = 0.0


def test_the_list_of_fairseq() -> None:
    layers = LayerDropModuleList([nn.Linear(2, 2)])
    layers.p = 0.2
    assert find_own_drop_path(layers) == (OwnDropPath("", layers, "p", 0.2, "layerdrop"),)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    "make",
    [
        lambda: DropConnect(2, 2),
        lambda: nn.Sequential(nn.Dropout(0.1), nn.Dropout2d(0.1)),
        lambda: drop_path_class("DropPathSchedule", "p")(0.1),
        lambda: DropBlock2d(0.1),
        lambda: block(drop_path=lambda: nn.Dropout(0.1))(lambda self, x: self.drop_path(x))(),
        lambda: torch.jit.script(DropPath(0.1)),
    ],
)
def test_other_dropout_is_left_alone(make: Any) -> None:
    assert find_own_drop_path(make()) == ()


@with_drop_path
def test_off_and_on_again(named: DropPathModel) -> None:
    model = named.model
    own = find_own_drop_path(model)
    before = [dict(vars(holder)) for holder in (one.holder for one in own)]
    seen = switch_off(own)
    assert find_own_drop_path(model) == ()
    restore(own, seen)
    assert [vars(one.holder) for one in own] == before
    with pytest.raises(KeyError), switched_off(own):
        assert find_own_drop_path(model) == ()
        raise KeyError
    assert [vars(one.holder) for one in own] == before


def test_what_is_changed_between_forwards_counts_from_the_next_on() -> None:
    model = nn.Sequential(DropPath(0.1), DropPath(0.2))
    own = find_own_drop_path(model)
    restore(own, switch_off(own))
    vars(model[0])["drop_prob"], vars(model[1])["drop_prob"] = 0.7, None
    for _ in range(2):
        seen = switch_off(own)
        assert [vars(module)["drop_prob"] for module in model] == [0, 0]
        restore(own, seen)
        assert [vars(module)["drop_prob"] for module in model] == [0.7, None]
    assert [one.rate for one in own] == [0.1, 0.2]  # as found


def test_between_forwards_nothing_can_be_seen() -> None:
    model = nn.Sequential(DropPath(0.1), nn.Linear(2, 2))
    shown = repr(model)
    own = find_own_drop_path(model)
    restore(own, switch_off(own))
    assert repr(model) == shown and repr(copy.deepcopy(model)) == shown
    assert vars(model[0]).keys() == vars(DropPath(0.1)).keys()


def test_a_config_that_watches_its_attributes_is_not_disturbed() -> None:
    model = StackOfConfig(config=Config(0.2))
    own = find_own_drop_path(model)
    with switched_off(own):
        assert model.config.layerdrop == 0
    assert model.config.layerdrop == 0.2


def test_a_model_that_is_off_computes_in_training_what_it_does_in_evaluation() -> None:
    """Real modules of timm, a rate of a block and layerdrop, each sure to drop something when on."""

    class Blocks(Stack):
        def __init__(self) -> None:
            super().__init__(encoder_layerdrop=0.9)
            self.drop_path = DropPath(0.9)
            self.drop_path_rate = 0.9

        def forward(self, x: Tensor) -> Tensor:
            x = super().forward(x) + self.drop_path(x)
            return x + F.dropout(x[:, :1], self.drop_path_rate, self.training)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Blocks(), torch.rand(8, 2)
        expected = model.eval()(x)
        own = find_own_drop_path(model.train())
        assert len(own) == 3
        with switched_off(own):
            assert torch.equal(model(x), expected)
        assert not torch.equal(model(x), expected)


def test_under_ours_it_is_off_while_a_forward_runs() -> None:
    class Drops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.drop_path = nn.Linear(6, 6), DropPath(0.9)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop_path(self.f(x))

    model, x = nn.Sequential(Drops(), Drops()), torch.randn(16, 6)
    rdp = ResidualDropPath(model, 0.5)
    rdp.step()
    assert rdp.kind == "dropped_part"
    torch.testing.assert_close(model(x), model.eval()(x))
