"""The training images of a recipe as a network is given them: in the order of an epoch, augmented, erased, mixed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ..data.augmented import Augmented, PerImage
from ..data.images import ImageData
from ..data.mixing import Mixing, eraser
from ..errors import UserError
from .batches import Augmentation, Batch, batches_of_epoch, rows_of
from .processes import Processes
from .recipe import Recipe, TrainConfig
from .runtime import derived_seed


class TrainingImages:
    """This process's rows of the batches of any epoch, and the statistics that images are normalised by."""

    def __init__(
        self, config: TrainConfig, data: ImageData, processes: Processes, statistics: tuple[list[float], list[float]]
    ):
        self.config = config
        self.processes = processes
        self.rows = rows_of(config.batch_size, processes.rank, processes.count)
        if config.mixes and config.batch_size % (2 * processes.count):
            raise UserError(
                f"`batch_size` must be a multiple of {2 * processes.count} with `mixup` or `cutmix`, pairs in each of "
                f"{processes.count} processes, got {config.batch_size}."
            )
        self.mean, self.deviation = statistics
        self.augmentation = _of_whole_batches(config, data)
        per_image = PerImage(
            config.crop_scale, config.crop_ratio, config.interpolation, config.auto_augment, config.color_jitter
        )
        self.augmented = None
        if per_image.acts:
            self.split = data.train.decoded()
            self.augmented = Augmented(self.split.source, per_image, self.mean)
        else:
            self.split = data.train.with_workers(config.workers).to(processes.device)
        self._erase = eraser(config.erase, config.erase_mode, config.erase_count) if config.erase else None
        self._mix = _mixing(config, data.num_classes) if config.mixes else None

    def batches(
        self, epoch: int, prepare: Callable[[Tensor], Tensor], start: int = 0, *, mixed: bool = True
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """From batch number `start` on: float[rows, channels, size, size] by `prepare`, and int64[rows].

        With mixup or cutmix labels are shares, float[rows, classes], unless they are not to be `mixed`.
        """
        seed = derived_seed(self.config.seed_of("order"), f"epoch {epoch}")
        mix = self._mix if mixed and (self.config.mix_until is None or epoch <= self.config.mix_until) else None
        for number, batch in enumerate(self._uint8(seed, start), start=start):
            images, labels = prepare(batch.images), batch.labels
            if self._erase is not None:
                images = self._erase(images, batch.places.seeds(seed, "erase"))
            if mix is not None:
                images, labels = mix(images, labels, self._mix_seeds(seed, number))
            yield images, labels

    def _uint8(self, seed: int, start: int) -> Iterator[Batch]:
        return batches_of_epoch(
            self.split,
            seed,
            self.config.batch_size,
            self.augmentation,
            self.processes.device,
            start=start,
            rows=self.rows,
            repeats=self.config.repeats,
            augmented=self.augmented,
            workers=self.config.workers,
            shuffle_buffer=self.config.shuffle_buffer,
        )

    def _mix_seeds(self, seed: int, number: int) -> list[int]:
        """One for a batch, or one for each of this process's pairs."""
        if self.config.mix_mode == "batch":
            return [derived_seed(seed, f"mix {number}")]
        pairs = range(self.rows.start // 2, self.rows.stop // 2)
        return [derived_seed(seed, f"mix {number} {pair}") for pair in pairs]


def _of_whole_batches(config: Recipe, data: ImageData) -> Augmentation:
    padding = data.image_size // 8 if config.crop_padding is None else config.crop_padding
    return Augmentation(
        0 if config.crop_scale is not None else padding, data.mirrored if config.mirror is None else config.mirror
    )


def _mixing(config: Recipe, num_classes: int) -> Mixing:
    return Mixing(
        num_classes,
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mix_probability,
        switch_prob=config.mix_switch,
        mode=config.mix_mode,
    )
