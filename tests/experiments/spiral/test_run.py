"""A whole run: its record, what a resumed one keeps, and whose folder it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.torch import load_file

from residualdroppath.analysis.units import recreated, reuse
from residualdroppath.errors import UserError
from residualdroppath.experiments.spiral.config import SpiralConfig
from residualdroppath.experiments.spiral.data import make_data
from residualdroppath.experiments.spiral.features import look_at
from residualdroppath.experiments.spiral.folder import SpiralFolder
from residualdroppath.experiments.spiral.network import make_network
from residualdroppath.experiments.spiral.profiles import PANELS
from residualdroppath.experiments.spiral.run import run_spiral
from residualdroppath.experiments.spiral.training import evaluate

Run = tuple[dict[str, Any], Path]
ROWS = ["untrained", "plain", "drop_path", "residual_drop_path"]


def results(out: Path) -> dict[str, Any]:
    return {str(path.relative_to(out)): json.loads(path.read_text()) for path in sorted(out.rglob("result.json"))}


def test_record_holds_every_row_and_what_made_it(tiny: SpiralConfig, tiny_run: Run) -> None:
    record, out = tiny_run
    assert json.loads((out / "record.json").read_text()) == record
    assert SpiralConfig(**record["config"]) == tiny and record["environment"]["versions"]["torch"]
    assert list(record["rows"]) == ROWS and len(results(out)) == 8
    for name, row in record["rows"].items():
        assert all(len(own["values"]) == 2 for own in row["scalars"].values())
        assert (row["against_plain"] is None) == (name in ("untrained", "plain"))
        for panel in (p for p in PANELS if p.key != "developments" or name != "untrained"):
            length = 4 if panel.probed else tiny.depth + (1 if panel.start == 0 else 0)  # probed: 0, 1, 2, 4
            assert all(len(row["profiles"][panel.key][key]) == length for key in ("mean", "low", "high"))
        assert np.shape(row["matrices"]["relations"]) == np.shape(row["matrices"]["cka_streams"]) == (5, 5)
        assert np.shape(row["matrices"]["cka_branches"]) == (4, 4) and np.shape(row["sweep"]) == (5, 4)
    starts = [row["scalars"]["train_loss"]["values"] for row in record["rows"].values()]
    assert all(starts[0] != other for other in starts[1:])


def test_figures_are_those_of_the_weights_that_are_kept(tiny: SpiralConfig, tiny_run: Run) -> None:
    out, data = tiny_run[1], make_data(tiny)
    for row in ROWS:
        network = make_network(tiny, 99)
        network.load_state_dict(load_file(out / row / "seed_1" / "model.safetensors"))
        scalars = json.loads((out / row / "seed_1" / "result.json").read_text())["scalars"]
        layers = list(look_at(network, data.grid).streams.astype(np.float64))
        assert scalars["recreated"] == recreated(layers).count
        assert scalars["reuse"] == pytest.approx(np.mean(reuse(layers)))
        assert (scalars["test_loss"], scalars["test_accuracy"]) == pytest.approx(evaluate(network, data.test))


def test_pictures_of_the_first_seed(tiny: SpiralConfig, tiny_run: Run) -> None:
    with np.load(tiny_run[1] / "plain" / "seed_0" / "pictures.npz") as arrays:
        assert arrays["maps"].shape == (5, 8, 12, 12) and arrays["film_maps"].shape[:3] == (3, 5, 8)
        assert arrays["decisions"].sum(0) == pytest.approx(np.ones((12, 12)), abs=1e-5)
        percent = arrays["reuse"]
        profile = json.loads((tiny_run[1] / "plain/seed_0/result.json").read_text())["profiles"]["reuse"]
        assert percent[2, 1].mean() / 100 == pytest.approx(profile[1], abs=0.005)
    assert not (tiny_run[1] / "plain" / "seed_1" / "pictures.npz").exists()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.full)])
def test_several_processes_and_a_resumed_run_give_the_same(
    workers: int, tiny: SpiralConfig, tiny_run: Run, tmp_path: Path
) -> None:
    record, out = tiny_run
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    for row, seed in (("plain", 0), ("residual_drop_path", 1)):  # as if cut off before these had ended
        (copy / row / f"seed_{seed}" / "result.json").unlink()
    kept = (copy / "drop_path" / "seed_0" / "result.json").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    again = run_spiral(
        tiny, copy, resume=True, workers=workers, on_progress=lambda done, total: seen.append((done, total))
    )
    assert again["rows"] == record["rows"] and results(copy) == results(out)
    assert (copy / "drop_path" / "seed_0" / "result.json").stat().st_mtime_ns == kept
    one, other = (load_file(path / "residual_drop_path/seed_1/model.safetensors") for path in (out, copy))
    assert all((one[name] == other[name]).all() for name in one)
    assert seen[-1] == (36, 36)  # two trainings of 12 iterations and what measuring counts


def test_a_resumed_run_may_have_more_seeds(tiny: SpiralConfig, tiny_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run[1], copy)
    record = run_spiral(tiny.model_copy(update={"seeds": 3}), copy, resume=True, workers=1)
    first = tiny_run[0]["rows"]["plain"]["scalars"]["train_loss"]["values"]
    assert record["rows"]["plain"]["scalars"]["train_loss"]["values"][:2] == first
    assert len(record["rows"]["plain"]["scalars"]["train_loss"]["values"]) == 3


def test_a_folder_belongs_to_one_run(tiny: SpiralConfig, tiny_run: Run, tmp_path: Path) -> None:
    out = tiny_run[1]
    with pytest.raises(UserError, match="is in use; choose another"):
        run_spiral(tiny, out)
    with pytest.raises(UserError, match=r"differs in width \(8 there, 16 now\)"):
        run_spiral(tiny.model_copy(update={"width": 16}), out, resume=True)
    with FileLock(out / ".lock"), pytest.raises(UserError, match="still goes on"):
        run_spiral(tiny, out, resume=True)
    (tmp_path / "other").write_text("not a folder")
    with pytest.raises(UserError, match="other"):
        run_spiral(tiny, tmp_path / "other", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="in use"):
        run_spiral(tiny, tmp_path / "full", resume=True)


def test_a_failing_worker_ends_the_run(tiny: SpiralConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not finite"):
        run_spiral(tiny.model_copy(update={"lr": 1e30}), tmp_path / "run", workers=2)


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"scalars": {"reuse": "much"}, "sweep": [], "profiles": {}, "matrices": {}}']
)
def test_a_damaged_result_is_named(tmp_path: Path, content: str) -> None:
    folder = SpiralFolder(tmp_path)
    path = folder.of("plain", 0) / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} is damaged"):
        folder.result("plain", 0)
