"""`examples/timm_train.patch` on timm's own `train.py`, of the checkout at TIMM_CHECKOUT or `../timm`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
PATCH = ROOT / "examples" / "timm_train.patch"
CHECKOUT = Path(os.environ.get("TIMM_CHECKOUT", ROOT.parent / "timm")).resolve()

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / "train.py").is_file() or shutil.which("git") is None,
    reason=f"needs git and a checkout of timm at {CHECKOUT}, or where TIMM_CHECKOUT points",
)

# timm's script wants accelerators for several processes: device_ids are refused on a CPU.
RUN = """
import runpy, sys
from torch.nn import parallel
from residualdroppath.models.torchvision_ops import ensure_torchvision_ops
ensure_torchvision_ops()
class OnCPU(parallel.DistributedDataParallel):
    def __init__(self, module, device_ids, **keywords):
        super().__init__(module, **keywords)
parallel.DistributedDataParallel = OnCPU
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the patched script, and three batches of images."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    folder = tmp_path_factory.mktemp("timm")
    shutil.copy(CHECKOUT / "train.py", folder)
    subprocess.run(["git", "apply", PATCH], cwd=folder, check=True, env={**os.environ, "GIT_CEILING_DIRECTORIES": "/"})
    for label in range(2):
        for part, count in (("train", 6), ("val", 1)):
            (folder / "data" / part / f"class{label}").mkdir(parents=True)
            for number in range(count):
                colour = (200 * label, 20 * number, 100)
                image.new("RGB", (40, 40), colour).save(folder / "data" / part / f"class{label}" / f"{number}.png")
    (folder / "run.py").write_text(RUN)
    return folder


def train(folder: Path, name: str, *words: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    command = (
        "run.py --data-dir data --train-split train --val-split val --model resnet10t --num-classes 2 --img-size 32"
    )
    command += " --batch-size 4 --opt sgd --lr 0.01 --warmup-epochs 0 --device cpu --workers 1"
    command += f" --drop-path 0.5 --no-prefetcher --output out --experiment {name} --log-interval 1"
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"] * (processes > 1)
    paths = [ROOT / "src", CHECKOUT, *sys.path]
    return subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, *command.split(), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
    )


def saved(folder: Path, name: str) -> dict[str, Any]:
    return torch.load(folder / "out" / name / "last.pth.tar", weights_only=False)


def test_the_patch_applies(patched: Path) -> None:
    script = (patched / "train.py").read_text()
    added = [line for line in PATCH.read_text().splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert all(line[1:] in script.splitlines() for line in added)
    page = (ROOT / "docs" / "integrations" / "timm.md").read_text()
    assert [line for line in added if line not in page.splitlines() and line != "+"] == []


@pytest.mark.full
def test_trains_with_the_models_rates_and_resumes_the_plan(patched: Path) -> None:
    done = train(patched, "first", "--epochs", "1", "--grad-accum-steps", "2", "--model-ema")
    assert done.returncode == 0, done.stderr
    state = saved(patched, "first")["task_state"]
    assert state["iteration"] == 2  # three batches
    assert state["options"]["drop_path_rate"] == "model" and len(state["branches"]) == 4
    done = train(patched, "second", "--epochs", "2", "--grad-accum-steps", "2", "--resume", "out/first/last.pth.tar")
    assert done.returncode == 0, done.stderr
    assert "Train: 1 [" in done.stderr and "Train: 0 [" not in done.stderr
    assert saved(patched, "second")["task_state"]["iteration"] == 4


@pytest.mark.full
def test_two_processes_need_the_third_edit(patched: Path) -> None:
    done = train(patched, "two", "--epochs", "2", processes=2)
    assert done.returncode == 0, done.stderr
    assert saved(patched, "two")["task_state"]["iteration"] == 2  # of each process's 6 images one batch an epoch
    script = (patched / "train.py").read_text()
    (patched / "train.py").write_text(script.replace(", find_unused_parameters=True", ""))
    try:
        done = train(patched, "failing", "--epochs", "2", processes=2)
        assert done.returncode != 0 and "find_unused_parameters=True" in done.stderr
    finally:
        (patched / "train.py").write_text(script)
