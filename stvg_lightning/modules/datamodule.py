"""The data module: shards as an endless, exactly resumable stream of prepared batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from stvg_lightning.data.shards import ShardFolder, ShardStream
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.modules.batches import GroundingBatch, make_batch
from stvg_lightning.modules.difficulty import DifficultySampler
from stvg_lightning.rollouts.preparation import Preparation
from stvg_lightning.tubes import Sample


@dataclass(frozen=True)
class Loading:
    """How batches are read.

    Attributes:
        batch_size: questions a batch and process.
        num_workers: processes that decode and prepare batches ahead; 0 prepares them in between.
        shuffle: a new order in every epoch, by seed and epoch; else the order of the shards.
        seed: seed of the order; the recipe's where None.
        max_bad_share: more bad samples than this share stop the run.
    """

    batch_size: int
    num_workers: int = 1
    shuffle: bool = True
    seed: int | None = None
    max_bad_share: float = 0.05

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.num_workers < 0:
            raise ValueError(
                f"batch_size {self.batch_size} must be at least 1, and num_workers {self.num_workers} at least 0"
            )


@dataclass(frozen=True)
class Place:
    """Where a training stands: batches done, and the epoch of the last of them with the number of its first batch."""

    num_done: int = 0
    epoch: int = 0
    epoch_start: int = 0


class EndlessBatches:
    """Batch after batch, epoch after epoch, from any batch on; what Lightning takes as a data loader.

    Lightning's own epochs are not used: ranks may differ by one sample, and a resumed epoch would begin
    anew. Here every rank has always a next batch, and its place says where it stands. Where a sampler chooses the
    questions of each epoch, epochs differ in length.
    """

    def __init__(
        self,
        stream: ShardStream,
        loader: DataLoader,
        place: Place,
        step_samples: int,
        sampler: DifficultySampler | None,
    ) -> None:
        self.stream, self.loader, self.place = stream, loader, place
        self.step_samples, self.sampler = step_samples, sampler

    def __iter__(self) -> Iterator[GroundingBatch]:
        number, epoch, first = self.place.num_done, self.place.epoch, self.place.epoch_start
        while True:
            batches_in_epoch = self._begin(epoch, first)
            if number < first + batches_in_epoch:
                self.stream.start_at(min((number - first) * self.step_samples, self.stream.num_places))
                started = perf_counter()
                for batch in self.loader:
                    seconds = perf_counter() - started
                    yield replace(batch, epoch=epoch, number=number, decode_seconds=seconds, epoch_start=first)
                    number += 1
                    started = perf_counter()
                # Bad samples make an epoch's batches fewer: the next epoch begins with its own first number.
                number = first + batches_in_epoch
            epoch, first = epoch + 1, first + batches_in_epoch

    def _begin(self, epoch: int, first: int) -> int:
        """Choose the questions of an epoch and its order; how many batches it has."""
        if self.sampler is not None:
            self.stream.choose(self.sampler.choose(epoch, first))
        self.stream.set_epoch(epoch)
        self.stream.start_at(0)
        return len(self.loader)


class GroundingData(LightningDataModule):
    """Shards in, batches out; how many batches are done is part of every checkpoint."""

    def __init__(
        self, shards: Path, preparation: Preparation, loading: Loading, sampler: DifficultySampler | None = None
    ) -> None:
        super().__init__()
        self.folder, self.preparation, self.loading = ShardFolder(shards), preparation, loading
        self.sampler, self.place = sampler, Place()

    @property
    def num_done(self) -> int:
        """Batches that have been trained on."""
        return self.place.num_done

    def train_dataloader(self) -> EndlessBatches:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if len(self.folder) < world_size:
            raise ValueError(
                f"{self.folder.directory} holds {len(self.folder)} samples, and there are {world_size} processes"
            )
        settings, encoder = self.loading, self.preparation.encoder
        assert isinstance(encoder, PromptEncoder), "models that are trained read prompts of this package"
        stream = ShardStream(
            self.folder.directory,
            seed=settings.seed or 0,
            shuffle=settings.shuffle,
            max_bad_share=settings.max_bad_share,
            rank=rank,
            world_size=world_size,
            transform=self.preparation,
        )
        stream.set_batch_size(settings.batch_size)
        loader = DataLoader(
            stream,
            settings.batch_size,
            num_workers=settings.num_workers,
            collate_fn=partial(make_batch, tokenizer=encoder.processor.tokenizer),
            prefetch_factor=2 if settings.num_workers else None,
        )
        return EndlessBatches(stream, loader, self.place, settings.batch_size * world_size, self.sampler)

    def note_done(self, batch: GroundingBatch) -> None:
        """Tell that a batch has been trained on: checkpoints written from now on go on after it."""
        self.place = Place(batch.number + 1, batch.epoch, batch.epoch_start)

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.place) | ({} if self.sampler is None else {"difficulty": self.sampler.state_dict()})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = Place(*(state[name.name] for name in fields(Place)))
        if self.sampler is not None:
            self.sampler.load_state_dict(state["difficulty"])

    def sample(self, id_: str) -> Sample:
        """A sample of the shards by its id."""
        return self.folder.of_id(id_)
