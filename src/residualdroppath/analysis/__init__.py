"""What residual branches are and do, measured on a model that is there.

docs/measures.md says what each measure means. A name is imported when it is first used: scikit-learn and SciPy are
heavy, and most users of one measure do not need the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.lazy_names import lazy_names

if TYPE_CHECKING:
    from .cka import MinibatchCKA as MinibatchCKA
    from .cka import hsic_unbiased as hsic_unbiased
    from .mutual_information import KSG as KSG
    from .mutual_information import binned_information as binned_information
    from .mutual_information import ksg_information as ksg_information
    from .mutual_information import ksg_with_null as ksg_with_null
    from .probes import Probe as Probe
    from .probes import label_entropy_bits as label_entropy_bits
    from .probes import probe as probe
    from .probes import reconstruction_r2 as reconstruction_r2
    from .probes import reduce_width as reduce_width
    from .relations import Development as Development
    from .relations import alike_in_development as alike_in_development
    from .relations import duplicates as duplicates
    from .relations import effective_units as effective_units
    from .relations import relation_matrix as relation_matrix
    from .streams import StreamStatistics as StreamStatistics
    from .units import Closest as Closest
    from .units import Recreated as Recreated
    from .units import closest as closest
    from .units import correlations as correlations
    from .units import max_correlations as max_correlations
    from .units import recreated as recreated
    from .units import recreated_sweep as recreated_sweep
    from .units import reuse as reuse

__all__ = [
    "Closest",
    "Development",
    "KSG",
    "MinibatchCKA",
    "Probe",
    "Recreated",
    "StreamStatistics",
    "alike_in_development",
    "binned_information",
    "closest",
    "correlations",
    "duplicates",
    "effective_units",
    "hsic_unbiased",
    "ksg_information",
    "ksg_with_null",
    "label_entropy_bits",
    "max_correlations",
    "probe",
    "reconstruction_r2",
    "recreated",
    "recreated_sweep",
    "reduce_width",
    "relation_matrix",
    "reuse",
]
_NAMES = {
    "cka": ["MinibatchCKA", "hsic_unbiased"],  # `cka` itself is the module here
    "mutual_information": ["KSG", "binned_information", "ksg_information", "ksg_with_null"],
    "probes": ["Probe", "label_entropy_bits", "probe", "reconstruction_r2", "reduce_width"],
    "relations": ["Development", "alike_in_development", "duplicates", "effective_units", "relation_matrix"],
    "streams": ["StreamStatistics"],
    "units": [
        "Closest", "Recreated", "closest", "correlations", "max_correlations", "recreated", "recreated_sweep", "reuse",
    ],
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
if not TYPE_CHECKING:  # to a type checker an unknown name is an error
    __getattr__, __dir__ = lazy_names(__name__, _MODULES, extra="train")
