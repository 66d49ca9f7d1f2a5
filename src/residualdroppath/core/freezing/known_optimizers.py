"""Optimizers known not to go with frozen parameters, and what to use in their place."""

from __future__ import annotations

from torch.optim import Optimizer

# By package, classes whose `step()` fails on a gradient that is None, or at a later step after one. Tried with
# dog-optimizer 1.0.3, dowgopt 0.13, parameterfree 0.0.1, ivon-opt 0.1.3, muon-optimizer 0.1.0, torch-sm3 0.1.0,
# casmo-optimizer 0.3.0, sgd-sai 1.0.3 and torchium 0.1.5.
FAIL_WITHOUT_GRADIENT = {
    "dog": {"DoG", "LDoG"},
    "dowg": {"DoWG"},
    "parameterfree": {"KT"},
    "ivon": {"IVON"},
    "muon": {"Muon", "SingleDeviceMuon", "MuonWithAuxAdam", "SingleDeviceMuonWithAuxAdam"},
    "SM3": {"SM3"},
    "casmo": {"CASMO"},
    "sgd_sai": {"SGD_sai"},
    "torchium": {"AdaHessian"},
}

# Keys next to "d" in the groups of Prodigy and of D-Adaptation's optimizers, some from the first step on.
STEP_SIZE_SUMS = ("d_numerator", "numerator_weighted", "gsq_weighted")


def name_of(optimizer: Optimizer) -> str:
    """Class and package, as in "`AdamW` (torch)"."""
    kind = type(optimizer)
    return f"`{kind.__name__}` ({kind.__module__.partition('.')[0]})"


def fails_without_gradient(optimizer: Optimizer) -> bool:
    """Whether this is a class, or derived from one, that cannot step while a gradient is None."""
    return any(
        kind.__name__ in FAIL_WITHOUT_GRADIENT.get(kind.__module__.partition(".")[0], ())
        for kind in type(optimizer).__mro__
    )


def estimates_step_size(optimizer: Optimizer) -> bool:
    """Whether the step size is a quotient of a sum over all steps and one over what learns now (Prodigy, D-Adaptation).

    Frozen parameters are left alone, but the quotient jumps when few parameters learn, and never falls again.
    """
    return any("d" in group and any(key in group for key in STEP_SIZE_SUMS) for group in optimizer.param_groups)


def swaps_weights(optimizer: Optimizer) -> bool:
    """Whether its own `eval()` and `train()` move all parameters and bring them back up to rounding (ScheduleFree)."""
    return any("train_mode" in group for group in optimizer.param_groups)


def replacement_for(optimizer: Optimizer) -> str:
    """What to use in place of an optimizer that moves parameters without a gradient."""
    name, package = type(optimizer).__name__, type(optimizer).__module__.partition(".")[0]
    if name.endswith("ScheduleFreeClosure"):
        return f"`{name.removesuffix('Closure')}`, the form without a closure"
    if package == "ranger21":
        return "`pytorch_optimizer.Ranger21`"
    if name in ("Lookahead", "Ranger"):
        return "`timm.optim.Lookahead` around the inner optimizer"
    if "Muon" in name:
        return "`torch.optim.Muon`, which passes over parameters without a gradient"
    return "an optimizer that passes over parameters without a gradient, as those of `torch.optim` but LBFGS do"
