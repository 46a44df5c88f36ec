"""The data module: shards as an endless, exactly resumable stream of prepared batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from stvg_lightning.data.shards import ShardFolder, ShardStream
from stvg_lightning.models.prompts import PromptEncoder
from stvg_lightning.modules.batches import GroundingBatch, make_batch
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


class EndlessBatches:
    """Batch after batch, epoch after epoch, from any batch on; what Lightning takes as a data loader.

    Lightning's own epochs are not used: ranks may differ by one sample, and a resumed epoch would begin
    anew. Here every rank has always a next batch, and the number of batches done says where it stands.
    """

    def __init__(
        self, stream: ShardStream, loader: DataLoader, num_done: int, batch_size: int, world_size: int
    ) -> None:
        self.stream, self.loader, self.num_done = stream, loader, num_done
        self.batch_size, self.world_size = batch_size, world_size

    def __iter__(self) -> Iterator[GroundingBatch]:
        self.stream.set_epoch(0)
        self.stream.start_at(0)
        batches_per_epoch = len(self.loader)
        number = self.num_done
        while True:
            epoch, done_in_epoch = divmod(number, batches_per_epoch)
            self.stream.set_epoch(epoch)
            self.stream.start_at(min(done_in_epoch * self.batch_size * self.world_size, len(self.stream.folder)))
            started = perf_counter()
            for batch in self.loader:
                yield replace(batch, epoch=epoch, number=number, decode_seconds=perf_counter() - started)
                number += 1
                started = perf_counter()
            # Bad samples make an epoch's batches fewer: the next epoch begins with its own first number.
            number = (epoch + 1) * batches_per_epoch


class GroundingData(LightningDataModule):
    """Shards in, batches out; how many batches are done is part of every checkpoint."""

    def __init__(self, shards: Path, preparation: Preparation, loading: Loading) -> None:
        super().__init__()
        self.folder, self.preparation, self.loading = ShardFolder(shards), preparation, loading
        self.num_done = 0

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
        return EndlessBatches(stream, loader, self.num_done, settings.batch_size, world_size)

    def note_done(self, batch: GroundingBatch) -> None:
        """Tell that a batch has been trained on: checkpoints written from now on go on after it."""
        self.num_done = batch.number + 1

    def state_dict(self) -> dict[str, int]:
        return {"num_done": self.num_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.num_done = state["num_done"]

    def sample(self, id_: str) -> Sample:
        """A sample of the shards by its id."""
        return self.folder.of_id(id_)
