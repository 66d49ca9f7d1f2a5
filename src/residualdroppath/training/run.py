"""`train`: a recipe and a folder in, a trained network and its record out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..data.identity import identity
from ..data.images import ImageData
from ..data.load import load_data
from ..data.order import require_shards
from ..data.request import Request
from ..records.environment import environment
from ..records.files import write_json
from ..records.paths import expanded
from .checkpoints import Checkpoint
from .description import NetworkDescription, describe
from .final import final_network, known_before, result_of
from .launcher import as_launched
from .logs import Log, opened_logs, require_packages
from .processes import Processes
from .progress import OnEpoch, TrainingProgress, console
from .recipe import Recipe, TrainConfig
from .run_folder import RunFolder
from .run_page import LivePage, write_run_page
from .runtime import peak_memory
from .saving import SavingTimes
from .starting_weights import default_image_size
from .stopping import StopRequest, stopped_by
from .trainer import Trainer


def load_config_data(config: Recipe) -> ImageData:
    """The data that a recipe asks for."""
    data = load_data(request_of(config), **cuts_of(config))
    require_shards(data.train.source, config.shuffle_buffer)
    return data


def request_of(config: Recipe) -> Request:
    """The set that a recipe names."""
    return Request(
        data=config.data,
        data_dir=expanded(config.data_dir),
        download=config.download,
        image_size=config.image_size or default_image_size(config),
        label_column=config.label_column,
        image_column=config.image_column,
    )


def cuts_of(config: Recipe) -> dict[str, Any]:
    """Which of its images are used for what."""
    names = ("validation_fraction", "train_size", "images_per_class", "num_classes", "class_seed", "split_seed")
    return {name: getattr(config, name) for name in names}


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    title: str = "train",
    data: ImageData | None = None,
    on_start: Callable[[Trainer], None] | None = None,
    on_epoch: OnEpoch | None = None,
    stops_on_signals: bool = False,
) -> dict[str, Any]:
    """Train as `config` says, keep everything in `out`, and return the result.

    With `resume` the run in `out` goes on after its last checkpoint, and ends with the weights that it would have had
    uninterrupted (on CPU bit for bit). `data` spares reading it again. `on_start` is called before the first
    iteration; then the time expected is shown, once it is known. With `on_epoch`, called after each
    epoch with it and their number, nothing is shown, and no page is written. With `stops_on_signals`, SIGINT, SIGTERM
    and SIGUSR1 end the training after the iteration under way with `Stopped`, everything saved.
    """
    folder = RunFolder(out)
    config = as_launched(config)
    processes = Processes(config.device)
    if data is None:
        config = config.located()
        with processes.main_first():
            data = load_config_data(config)
    require_packages(config)
    trainer = Trainer(config, data, processes)  # before the folder is claimed: a mistake leaves none behind
    if config.test and folder.result is None:
        data.test.decode_early()
    with ExitStack() as stack:
        result, checkpoint, rows, changed = processes.from_main(lambda: _open(folder, trainer, resume, stack))
        if result is not None:
            return result
        if checkpoint is not None:
            trainer.load_state_dict(checkpoint.weights, checkpoint.state)
        about = describe_network(trainer).plain()
        if processes.is_main:  # when all else was found whole
            folder.note_start(config, about["data"], environment(trainer.device) | {"processes": processes.count})
            folder.note_weights(trainer.made.start and trainer.made.start.sha256)
        if not processes.is_main:
            on_start, on_epoch = None, _show_nothing
        if on_epoch is None:
            _show_resumed(trainer, checkpoint, changed)
        if on_start is not None:
            on_start(trainer)
        progress = TrainingProgress(
            title, trainer.total_iterations, trainer.iteration, estimate=on_start is not None, on_epoch=on_epoch
        )
        stop = StopRequest()
        logs: list[Log] = []
        if processes.is_main:
            logs += stack.enter_context(opened_logs(config, folder.path, len(rows)))
            if on_epoch is None:
                logs.append(LivePage(folder, config, known_before(trainer), trainer.epochs))
        with progress, stop.listening(active=stops_on_signals):
            _train_epochs(trainer, folder, rows, progress, SavingTimes(config, processes, stop), logs, about)
        model = final_network(trainer, folder)
        weights = trainer.weights(model)
        average = trainer.weights(trainer.ema.module) if trainer.ema is not None and config.use != "ema" else None
        digest = None
        if processes.is_main:  # before the test, which a damaged image can end
            digest = folder.save_model(weights, about)
            if average is not None:
                folder.save_average(average, about)
        result = result_of(trainer, model, rows)
        if processes.is_main:
            result["model_sha256"] = digest
            if on_epoch is None:
                write_run_page(folder, config, result)
            write_json(folder.path / "result.json", result)
        return result


def _open(
    folder: RunFolder, trainer: Trainer, resume: bool, stack: ExitStack
) -> tuple[dict[str, Any] | None, Checkpoint | None, list[dict[str, Any]], str | None]:
    """Claim the folder while `stack` is open: the result, if there is nothing left to do, checkpoint, and metrics.

    Last a line on test images that changed, if they did.
    """
    stack.enter_context(folder.opened(trainer.config, resume=resume))
    changed = folder.require_data(identity(trainer.data))
    folder.require_weights(trainer.made.start and trainer.made.start.sha256)
    result = folder.result
    if result is not None and result["epochs"] == trainer.epochs:
        return result, None, [], None
    checkpoint = folder.checkpoints.load()
    if checkpoint is None:
        folder.require_unfinished()
    rows = folder.metrics(0 if checkpoint is None else int(checkpoint.state["epoch"]))
    return None, checkpoint, rows, changed


def _train_epochs(
    trainer: Trainer,
    folder: RunFolder,
    rows: list[dict[str, Any]],
    progress: TrainingProgress,
    saving: SavingTimes,
    logs: Sequence[Log],
    about: dict[str, Any],
) -> None:
    """The epochs to come, a row of metrics for each; all is saved after each, and when `saving` has it."""
    config = trainer.config

    def save(accuracy: float | None = None) -> None:
        trainer.require_finite_weights()
        weights, state = trainer.weights(), trainer.state_dict()
        if trainer.processes.is_main:
            folder.checkpoints.save(weights, state, accuracy=accuracy, last=config.keep_checkpoints, about=about)
        saving.note_saved()

    def after_iteration() -> None:
        if not saving.due(trainer.iteration):
            return
        if saving.signal or not trainer.is_at_end_of_epoch:
            save()
        if saving.signal:
            trainer.processes.wait()  # a launcher ends all when the first one ends
            raise stopped_by(saving.signal, trainer.iteration)

    while trainer.epoch < trainer.epochs:
        epoch = trainer.epoch + 1
        progress.start_epoch(trainer.so_far.iterations)
        row = {"epoch": epoch, **trainer.train_epoch(epoch, progress, after_iteration), "iteration": trainer.iteration}
        row |= {"lr": trainer.last_lr, **peak_memory(trainer.device)}
        if epoch % config.validate_every == 0 or epoch == trainer.epochs:
            row |= trainer.validate()
            trainer.require_finite(row["validation_loss"], epoch)  # the last update is in no training loss
        rows.append(row)
        if trainer.processes.is_main:
            folder.write_metrics(rows)  # first: a resumed run drops a row too many, it cannot make up one
        save(row.get("validation_accuracy"))
        for log in logs:
            log.write(row)
        progress.epoch_line(row, trainer.epochs)


def describe_network(trainer: Trainer) -> NetworkDescription:
    """What goes with the weights of a run."""
    mean, deviation = trainer.made.statistics
    return describe(
        trainer.config,
        trainer.data,
        identity(trainer.data),
        channels=trainer.channels,
        mean=mean,
        deviation=deviation,
    )


def _show_resumed(trainer: Trainer, checkpoint: Checkpoint | None, changed: str | None) -> None:
    """What changed of its data, from where a run goes on, and why not from a later checkpoint or with the same bits."""
    lines = [changed] if changed is not None else []
    lines += _lines_on(trainer, checkpoint) if checkpoint is not None else []
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines_on(trainer: Trainer, checkpoint: Checkpoint) -> list[str]:
    lines = [f"checkpoint not used, it is damaged: {damaged}" for damaged in checkpoint.damaged]
    if lines:
        lines.append(f"the one before is used: iteration {trainer.iteration:,}")
    if checkpoint.unchecked:
        lines.append(f"no digests of the checkpoint are there, so it was not checked: iteration {trainer.iteration:,}")
    before = len(checkpoint.state.get("generators", [None]))
    if before != trainer.processes.count:
        lines.append(
            f"the run was saved by {before} processes and goes on in {trainer.processes.count}: data, order and plan "
            "are the same, sums of gradients and dropout are not, bit for bit"
        )
    return lines


def _show_nothing(epoch: int, epochs: int) -> None:
    """For processes other than the main one."""
