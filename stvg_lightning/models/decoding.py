"""Completions written token after token, in four ways that give the same, to rounding.

- `plain`: tables grow with what is written, and completions that have ended leave at once.
- `lean`: tables of `plain`, the layers of a small model taken apart (`lean_layers`): on a CPU, in half to three
  quarters of the time.
- `fixed`: tables of a few fixed shapes (`fixed_prompts`), as a recording needs them, without one.
- `graphs`: those of `fixed` on an NVIDIA GPU, where each shape's step is recorded as a CUDA graph and replayed. Without
  it the hundreds of small kernels of a step take longer to start than to run.

From prompts that were read (`group_forward.prefill`) a decoder makes its tables, `DecodingPrompts` that grow or
`FixedPrompts`. Of each chosen token a step goes through the layers, transformers' own (`group_forward.decode_step`) or
`LeanLayers`; every layer's attention is asked of the tables, which answer by `decoding_attention`, or on an NVIDIA GPU
in half precision by `decoding_kernels`.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from stvg_lightning.models.decoding_prompts import DecodingPrompts
from stvg_lightning.models.fixed_prompts import FixedPrompts, FixedShape, bucket
from stvg_lightning.models.group_forward import decode_step
from stvg_lightning.models.lean_layers import LeanLayers, why_not_lean
from stvg_lightning.tubes.choices import check_choice

Way = Literal["plain", "lean", "fixed", "graphs"]
Decoding = Literal["auto", Way]
WAYS: tuple[Way, ...] = get_args(Way)
DECODINGS: tuple[Decoding, ...] = get_args(Decoding)
LEAST_STEPS_AHEAD = 8
"""A recording takes about as long as some steps: it is not made of a shape that goes sooner than that."""
LEAST_FREE_BYTES = 2**30
"""Of a GPU's memory, before a step is recorded; with less what torch keeps for later is given back first."""
Step = Callable[[], Tensor]
Recorder = Callable[[Step], Step]
"""Runs a step and gives what repeats it on the same places of memory; both give the same tensor."""


@runtime_checkable
class Decoder(Protocol):
    """Reads completions token by token, rows in the order of their prompts."""

    @property
    def decoding(self) -> str:
        """How it does that: `plain`, `lean`, `fixed` or `graphs`."""
        ...

    def keep(self, kept: Bool[Tensor, " rows"]) -> None:
        """Let completions leave that have ended."""
        ...

    def read(self, token_ids: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Read one more token of every completion that is left, and give what predicts the next."""
        ...


def decoding_of(wanted: Decoding, model: PreTrainedModel) -> Way:
    """How a model's completions are written: as wanted, and with `auto` by graphs or lean where that can be.

    Raises:
        ValueError: graphs are wanted of a model that is not wholly on one NVIDIA GPU, lean of one that cannot be taken
            apart, or an unknown way.
    """
    check_choice("decoding", wanted, DECODINGS)
    devices = {parameter.device for parameter in model.parameters()}
    can_record = len(devices) == 1 and next(iter(devices)).type == "cuda"
    if wanted == "graphs" and not can_record:
        places = ", ".join(sorted(str(device) for device in devices))
        raise ValueError(
            f"decoding: graphs needs the whole model on one NVIDIA GPU, not on {places}: choose auto, plain or fixed"
        )
    obstacle = why_not_lean(model) if wanted in ("auto", "lean") else None
    if wanted == "lean" and obstacle is not None:
        raise ValueError(f"decoding: lean cannot be, {obstacle}: choose auto, plain or fixed")
    if wanted == "auto":
        return "graphs" if can_record else "lean" if obstacle is None else "plain"
    return wanted


def decoder_of(
    decoding: Way,
    model: PreTrainedModel,
    prompts: DecodingPrompts,
    last_positions: Int[Tensor, "3 rows"],
    most_tokens: int,
    must_record: bool = False,
) -> Decoder:
    """What reads the completions of prompts that were read.

    Args:
        decoding: see `decoding_of`.
        model: the vision-language model, in evaluation mode.
        prompts: with as many completions each; the decoder takes them over.
        last_positions: of the last token of each row's prompt.
        most_tokens: that are read of any completion.
        must_record: a step that cannot be recorded is an error; otherwise it is warned of, and done without.
    """
    if decoding == "plain" or most_tokens == 0:
        return GrowingDecoder("plain", partial(decode_step, model), prompts, last_positions)
    if decoding == "lean":
        return GrowingDecoder("lean", LeanLayers.of(model).step, prompts, last_positions)
    fixed = FixedPrompts.of(prompts, last_positions, most_tokens)
    record = GraphRecorder(last_positions.device) if decoding == "graphs" else None
    return FixedDecoder.of(model, fixed, record, must_record)


@dataclass
class GrowingDecoder:
    """Reads in tables that hold what is needed and no more.

    Attributes:
        decoding: `plain` or `lean`.
        step: reads token ids, (rows,), at positions, (3, rows), after prompts, and gives what predicts the next.
        prompts: the tables.
        last_positions: of the last token of each row's prompt.
    """

    decoding: str
    step: Callable[[Tensor, Tensor, DecodingPrompts], Tensor]
    prompts: DecodingPrompts
    last_positions: Int[Tensor, "3 rows"]

    def keep(self, kept: Bool[Tensor, " rows"]) -> None:
        """Let completions leave that have ended."""
        self.prompts.keep(kept)
        self.last_positions = self.last_positions[:, kept]

    def read(self, token_ids: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Read one more token of every completion that is left."""
        states = self.step(token_ids, self.last_positions + 1 + self.prompts.step, self.prompts)
        self.prompts.step += 1
        return states


@dataclass
class FixedDecoder:
    """Reads in tables of fixed shapes, so that a step can be recorded.

    Attributes:
        model: the vision-language model.
        prompts: the tables.
        token_ids: what the next step reads at each place.
        record: records a shape's step when it is needed first, and may be for `LEAST_STEPS_AHEAD`; None: nothing is
            recorded.
        must_record: see `decoder_of`.
        places: of each completion that is left; `place_ids` is the same on the device.
        num_read: tokens of each completion that were read.
        steps_of: how often each shape was used.
    """

    model: PreTrainedModel
    prompts: FixedPrompts
    token_ids: Int[Tensor, " places"]
    record: Recorder | None
    must_record: bool
    places: list[int]
    place_ids: Int[Tensor, " rows"]
    num_read: int = 0
    steps_of: dict[FixedShape, int] = field(default_factory=dict)
    _recorded: dict[FixedShape, Step] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: PreTrainedModel, prompts: FixedPrompts, record: Recorder | None, must_record: bool = False
    ) -> FixedDecoder:
        """With a completion at every place."""
        num_places = prompts.shape.num_places
        token_ids = torch.zeros(num_places, dtype=torch.long, device=prompts.bias.device)
        place_ids = torch.arange(num_places, device=token_ids.device)
        return cls(model, prompts, token_ids, record, must_record, list(range(num_places)), place_ids)

    @property
    def decoding(self) -> str:
        return "graphs" if self._recorded else "fixed"

    def keep(self, kept: Bool[Tensor, " rows"]) -> None:
        """Let completions leave that have ended; what is left moves where fewer places do for it."""
        self.places = [place for place, stays in zip(self.places, kept.tolist(), strict=True) if stays]
        if not self.places:
            return
        shape = self.prompts.shape
        rows_of: dict[int, list[int]] = {}
        for place in self.places:
            rows_of.setdefault(place // shape.places_each, []).append(place)
        num_prompts = bucket(len(rows_of), shape.num_prompts)
        each = bucket(max(len(rows) for rows in rows_of.values()), shape.places_each)
        if (num_prompts, each) != (shape.num_prompts, shape.places_each):
            self._move(rows_of, replace(shape, num_prompts=num_prompts, places_each=each))
        self.place_ids = torch.tensor(self.places, device=self.token_ids.device)

    def read(self, token_ids: Int[Tensor, " rows"]) -> Float[Tensor, "rows width"]:
        """Read one more token of every completion that is left."""
        written_tokens = self.prompts.written_tokens(self.num_read + 1)
        self.prompts.shape = shape = replace(self.prompts.shape, written_tokens=written_tokens)
        self.token_ids.index_copy_(0, self.place_ids, token_ids)
        if not self.prompts.has_kernels:
            self.prompts.own_bias[self.num_read] = 0.0
        self.steps_of[shape] = self.steps_of.get(shape, 0) + 1
        is_worth_it = self.steps_of[shape] == 1 and written_tokens - self.num_read >= LEAST_STEPS_AHEAD
        if self.record is not None and is_worth_it:
            self._keep_recorded(shape, self.record)
        states = self._recorded.get(shape, self._step)()
        self.prompts.read += 1
        self.num_read += 1
        return states[self.place_ids]

    def _keep_recorded(self, shape: FixedShape, record: Recorder) -> None:
        # What libraries set up at the first use of a shape cannot be recorded; layers are alike, and one does for all.
        with _first_layer_alone(self.model):
            self._step()
        try:
            self._recorded[shape] = record(self._step)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.must_record:
                raise
            warnings.warn(f"{error}; completions are written without", RuntimeWarning, stacklevel=2)
            self.record = None

    def _step(self) -> Float[Tensor, "places width"]:
        """One step at all places of the shape: the same work on the same memory, whatever has been written."""
        token_ids = self.token_ids[: self.prompts.shape.num_places]
        return decode_step(self.model, token_ids, self.prompts.positions(), self.prompts)

    def _move(self, rows_of: dict[int, list[int]], shape: FixedShape) -> None:
        """Completions of each prompt to the front; places that nobody needs repeat what another place holds."""
        filler = self.places[0]
        prompts = list(rows_of) + [next(iter(rows_of))] * (shape.num_prompts - len(rows_of))
        sources, self.places = [filler] * shape.num_places, []
        for number, rows in enumerate(rows_of.values()):
            first = number * shape.places_each
            sources[first : first + len(rows)] = rows
            self.places += range(first, first + len(rows))
        self.prompts.move(prompts, sources, shape, self.num_read)


@contextmanager
def _first_layer_alone(model: PreTrainedModel) -> Iterator[None]:
    """Without the other layers of the language model."""
    language_model = model.model.language_model
    layers = language_model.layers
    language_model.layers = layers[:1]
    try:
        yield
    finally:
        language_model.layers = layers


class GraphRecorder:
    """Records steps as CUDA graphs, which share their memory: only one of them runs at a time.

    The GPU is not waited for, as long as there is room: it may still be reading the prompts while the step after them
    is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(device)

    def __call__(self, step: Step) -> Step:
        """Record a step, and run it when what is given back is called.

        Raises:
            torch.OutOfMemoryError: there is no room for it, though memory that nobody uses was given back.
            RuntimeError: something in the model cannot be recorded.
        """
        with torch.cuda.device(self.device):
            if torch.cuda.mem_get_info(self.device)[0] >= LEAST_FREE_BYTES:
                try:
                    return self._recorded(step)
                except torch.OutOfMemoryError:
                    pass  # a recording cannot take what torch keeps for later, nor ask for it to be freed
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            return self._recorded(step)

    def _recorded(self, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        try:
            with _autocast_without_cache(), _without_collecting(), torch.cuda.stream(self.stream):
                # Threads that load data may go on using the GPU meanwhile.
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    states = step()
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # The end of a recording tells that something went wrong, and not what.
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            told = f"no step could be recorded ({error}): sampling.decoding: plain does without"
            raise RuntimeError(told) from error

        def replay() -> Tensor:
            graph.replay()
            return states

        return replay


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Garbage may hold an older recording, and one that is taken down spoils that which is being made."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def _autocast_without_cache() -> torch.autocast:
    """As it is: what autocast keeps of weights lies outside of a recording and may be gone when it is replayed."""
    dtype, enabled = torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)
