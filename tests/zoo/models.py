"""Networks of the libraries, made small, and inputs for them."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
from types import ModuleType
from typing import Any

import torch
from torch import nn

from contracts.subject import Subject
from residualdroppath.core.discovery.own_drop_path import find_own_drop_path, switch_off
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops

from .expected import ExpectedFile, ExpectedModel


def build(model: ExpectedModel, seed: int = 0) -> nn.Module:
    """The network in its precision and training mode, every parameter away from zero, the same at every call.

    Its own drop path is off: under the method it is, and the networks that contracts compare with are plain.
    """
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        network = _MAKERS.get(model.library, _by_path)(model)
        if model.dtype == "float64":
            network.double()
        # Libraries set the last norm or layer scale of a branch to zero: then nothing would be tested.
        for parameter in network.parameters():
            if parameter.is_floating_point():
                parameter.data += 0.05 * torch.randn_like(parameter)
    switch_off(find_own_drop_path(network))
    return network.train()


def inputs(model: ExpectedModel, rows: int = 2, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments for one forward, an example batch."""
    generator = torch.Generator().manual_seed(seed)
    if model.inputs:
        dtype = getattr(torch, model.dtype)
        return {name: _input(spec, rows, generator, dtype) for name, spec in model.inputs.items()}
    if model.library == "transformers":
        from .transformers_models import transformers_inputs

        return transformers_inputs(model, rows, generator)
    images = torch.randn(rows, *model.input, dtype=torch.float64, generator=generator)
    return {"x": images}


def _input(spec: Any, rows: int, generator: torch.Generator, dtype: torch.dtype) -> Any:
    """One argument of a forward, as `expected.py` describes it."""
    match spec:
        case list():
            return torch.randn(rows, *spec, dtype=dtype, generator=generator)
        case {"shape": shape, **rest}:
            shape = tuple(shape) if rest.get("whole") else (rows, *shape)
            if "below" in rest:
                return torch.randint(rest.get("from", 0), rest["below"], shape, generator=generator)
            return torch.randn(*shape, dtype=dtype, generator=generator)
        case {"value": value}:
            return torch.tensor(value)
        case {"of": dict(parts)}:
            return {name: _input(part, rows, generator, dtype) for name, part in parts.items()}
        case {"of": parts}:
            return [_input(part, rows, generator, dtype) for part in parts]
    return spec


def subject(model: ExpectedModel) -> Subject:
    """To be held to the contracts."""
    return Subject(lambda: build(model), lambda seed: inputs(model, rows=3, seed=seed), strict=False)


def number_of(model: ExpectedModel) -> int:
    """That chooses its rows of options: any one, the same at every run."""
    return sum(model.name.encode())


def _timm(model: ExpectedModel) -> nn.Module:
    ensure_torchvision_ops()
    import timm

    return timm.create_model(model.name, pretrained=False, **{"num_classes": 5, **model.options})


def _torchvision(model: ExpectedModel) -> nn.Module:
    """A registered builder by its name, or a class of a model file by `<file>.<class>`, made of its own arguments."""
    ensure_torchvision_ops()
    import torchvision

    file, _, name = model.name.rpartition(".")
    if not file:
        return torchvision.models.get_model(model.name, weights=None, **{"num_classes": 5, **model.options})
    module = importlib.import_module(f"torchvision.models.{file}")
    return getattr(module, name)(**{"num_classes": 5, **_classes(model.options, module)})


def _classes(value: Any, module: ModuleType) -> Any:
    """`value` where names of classes of `module` became the classes, and `{class: arguments}` an instance."""
    if isinstance(value, str):
        return getattr(module, value, value)
    if isinstance(value, list):
        return [_classes(item, module) for item in value]
    if isinstance(value, dict):
        if len(value) == 1 and hasattr(module, key := next(iter(value))):
            return getattr(module, key)(*value[key])
        return {key: _classes(item, module) for key, item in value.items()}
    return value


def _by_path(model: ExpectedModel) -> nn.Module:
    ensure_torchvision_ops()  # many libraries import torchvision
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        return _made({"make": model.make, "options": model.options})


def _made(value: Any) -> Any:
    """`value` where each `{make: path, args: [...], options: {...}}` became what the call returns."""
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "make" not in value:
        return {key: _made(item) for key, item in value.items()}
    args, options = _made(value.get("args", [])), _made(value.get("options", {}))
    return pkgutil.resolve_name(value["make"])(*args, **options)


def _transformers(model: ExpectedModel) -> nn.Module:
    from .transformers_models import make_transformers_model

    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        return make_transformers_model(model)


_MAKERS: dict[str, Any] = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}


def some_model_of(file: ExpectedFile) -> tuple[str, nn.Module]:
    """The name and network, without weights, of the first model of a file that has no residual branch."""
    ensure_torchvision_ops()
    import timm
    import torchvision

    if file.library == "timm":
        names = timm.list_models(module=file.file)
    else:
        names = torchvision.models.list_models()
        names = [n for n in names if torchvision.models.get_model_builder(n).__module__.endswith(f".{file.file}")]
    with torch.device("meta"):
        maker = timm.create_model if file.library == "timm" else torchvision.models.get_model
        return names[0], maker(names[0])
