"""A trained network as a file for other programs: ONNX, `torch.export`, or weights; loaded again and compared."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, first_line
from ..models.spec import quiet
from ..records.files import replacing
from ..records.tensors import KEY, write_weights
from .network import TrainedNetwork, example_images, load_network

Format = Literal["onnx", "torch-export", "safetensors"]
COMPARED = (1, 2, 5)  # batch sizes that the exported network is compared on
TOLERANCE = 1e-4  # of logits, relative to the largest one: other programs sum in another order
INPUT, OUTPUT = "images", "logits"
# The network without, given a batch: logits. Loaded from the file alone.
Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """Logits of float[batch, channels, size, size]: normalised ones, or pixels 0 to 255."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: TrainedNetwork, *, with_normalisation: bool):
        super().__init__()
        self.network = network.model
        self.channels = network.about.channels
        self.with_normalisation = with_normalisation
        for name, values in (("mean", network.about.mean), ("deviation", network.about.deviation)):
            self.register_buffer(name, torch.tensor(values, device=network.device).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self.with_normalisation:
            images = (images - self.mean) / self.deviation
            images = images if images.shape[1] == self.channels else images.expand(-1, self.channels, -1, -1)
        return self.network(images)


def require_packages(format: Format) -> None:
    """Raises `UserError` unless what writes such files is installed."""
    missing = [name for name in ("onnx", "onnxscript") if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UserError(f"{' and '.join(missing)} {verb} not installed: pip install 'residualdroppath[export]'.")


def export(
    network: TrainedNetwork, format: Format, out: Path, *, with_normalisation: bool = False, new: bool = False
) -> float:
    """Write the file, and return the largest difference of logits of the network in it, which is loaded again.

    Raises `UserError` if the network cannot be exported, or what was written gives other logits; nothing is left then.
    With `new` no file is replaced that is there by then (`replacing`).
    """
    deployed = Deployed(network, with_normalisation=with_normalisation).eval()
    images = sample_input(network, with_normalisation=with_normalisation)
    with replacing(out, new=new) as partial:
        try:
            run = WRITERS[format](network, deployed, images, partial)
        except (UserError, OSError):
            raise
        except Exception as error:  # each network fails in its own way
            raise UserError(
                f"{network.about.model} cannot be exported as {format} for any batch size ({first_line(error)}); "
                "choose another `format`."
            ) from error
        return _compare(deployed, run, images)


def sample_input(network: TrainedNetwork, *, with_normalisation: bool) -> Tensor:
    """Rows for all sizes that are compared: normal noise, or pixels."""
    about, rows = network.about, max(COMPARED)
    if not with_normalisation:
        return example_images(about, rows, network.device)
    generator = torch.Generator().manual_seed(0)
    shape = (rows, about.image_channels, about.image_size, about.image_size)
    return torch.randint(0, 256, shape, generator=generator).float().to(network.device)


def input_line(network: TrainedNetwork, *, with_normalisation: bool) -> str:
    """What the exported network is to be given, for a person."""
    about = network.about
    channels = about.image_channels if with_normalisation else about.channels
    line = f"input: {INPUT}, float32[batch, {channels}, {about.image_size}, {about.image_size}], "
    if with_normalisation:
        return f"{line}pixels 0 to 255"
    mean, deviation = (" ".join(f"{value:.2f}" for value in values) for values in (about.mean, about.deviation))
    grey = ", grey images repeated" if about.image_channels != about.channels else ""
    return f"{line}(pixels 0 to 255 - mean {mean}) / deviation {deviation}{grey}"


@torch.no_grad()
def _compare(deployed: nn.Module, run: Run, images: Tensor) -> float:
    largest = 0.0
    for rows in COMPARED:
        expected = deployed(images[:rows]).float().cpu()
        found = run(images[:rows]).float().cpu()
        difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
        largest = max(largest, difference)
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise UserError(
                f"The exported network gives other logits (by up to {difference:.3g} in a batch of {rows}); nothing "
                "was written. Choose another `format`."
            )
    return largest


def _note(network: TrainedNetwork, deployed: Deployed) -> str:
    about = network.about.plain()
    return json.dumps({**about, "normalisation_included": deployed.with_normalisation})


def _write_safetensors(network: TrainedNetwork, deployed: Deployed, images: Tensor, path: Path) -> Run:
    assert not deployed.with_normalisation, "weights alone hold no graph"
    write_weights(path, network.model.state_dict(), network.about.plain())
    return load_network(path, str(network.device)).model


def _exported(deployed: Deployed, images: Tensor) -> Any:
    with quiet():
        batch = torch.export.Dim("batch", min=1)
        return torch.export.export(deployed, (images[:2],), dynamic_shapes=({0: batch},))


def _write_torch_export(network: TrainedNetwork, deployed: Deployed, images: Tensor, path: Path) -> Run:
    with path.open("wb") as file, quiet():
        torch.export.save(_exported(deployed, images), file, extra_files={f"{KEY}.json": _note(network, deployed)})
    with path.open("rb") as file, quiet():
        return torch.export.load(file).module()


def _write_onnx(network: TrainedNetwork, deployed: Deployed, images: Tensor, path: Path) -> Run:
    import onnx

    with quiet():
        program = torch.onnx.export(
            deployed,
            (images[:2],),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    for key, value in (("residualdroppath", _note(network, deployed)), ("classes", json.dumps(network.about.classes))):
        onnx.helper.set_model_props(made, {**{prop.key: prop.value for prop in made.metadata_props}, key: value})
    path.write_bytes(made.SerializeToString())
    return _run_onnx(path)


def _run_onnx(path: Path) -> Run:
    """By onnxruntime where it is installed, else by the slow reference of onnx."""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime  # pyright: ignore[reportMissingImports]

        session: Any = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    else:
        import onnx
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(onnx.load_from_string(path.read_bytes()))
    return lambda images: torch.as_tensor(session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0])


WRITERS: dict[Format, Callable[[TrainedNetwork, Deployed, Tensor, Path], Run]] = {
    "onnx": _write_onnx,
    "torch-export": _write_torch_export,
    "safetensors": _write_safetensors,
}
