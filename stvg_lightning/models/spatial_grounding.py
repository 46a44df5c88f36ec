"""SARL-STG's spatial grounding module: Grounding DINO on the frames of a sub-clip, with the whole video and time.

Each frame gives the detector's candidates, a score and a box each, the best 100; they are put into the order of tracks,
so that candidate `n` of all frames is one thing. What a frame gives does not depend on the clip that it stands in, but
for the order of tracks and the enhancement over time: frames are read once, and clips of them compared many times.

Its names: the *detector* is transformers' Grounding DINO; the *module* is the detector with GLFFM and TEM inside; a
*grounder* is a module with its tokenizer and image processor; a *discriminator* (`rollouts/discriminator.py`) is a
frozen grounder at work, which tells boxes for answered times, to rewards and to predictions.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessor

from stvg_lightning.models.adapters import check_rank
from stvg_lightning.models.loading import DTYPES, TINY, TINY_DETECTOR_FOLDER, Dtype
from stvg_lightning.models.spatial_layers import GlobalLocalFusion, TemporalEnhancement
from stvg_lightning.models.spatial_tracks import corners, track_order

INSERTIONS_FILE = "insertions.safetensors"
MODULE_FILE = "spatial_grounding.json"
MAX_CANDIDATES = 100
"""Candidates of a frame that tracks are made of, those of the highest scores; Grounding DINO has 900."""

NOT_ADAPTED = re.compile(r"bbox_embed|class_embed|enc_output")
"""Layers without LoRA: the heads, and what chooses the proposals, which no gradient reaches."""


@dataclass(frozen=True)
class FrameReading:
    """How frames go through the detector; of this only their size changes what is found.

    Attributes:
        shortest_side_pixels: frames are resized to it, and their longest side is cut in proportion; None: as the
            detector's own image processor does, 800 and 1333 for those of the paper.
        frames_at_once: frames that go through together.
        recompute_activations: training keeps nothing of the detector's passes but their ends, and computes the rest
            again for the gradient: memory for `frames_at_once` frames instead of a whole sub-clip's.
    """

    shortest_side_pixels: int | None = None
    frames_at_once: int = 16
    recompute_activations: bool = False

    def __post_init__(self) -> None:
        for name in ("shortest_side_pixels", "frames_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Phrase:
    """A sentence as the detector reads it."""

    input_ids: Int[Tensor, " tokens"]

    def to(self, device: torch.device | str) -> Phrase:
        """The same phrase on a device."""
        return Phrase(self.input_ids.to(device))


@dataclass(frozen=True)
class FrameStates:
    """What the detector makes of frames by themselves: the states of a layer of its decoder, and what its heads need.

    Attributes:
        hidden: what the layer gives.
        references: the boxes that it started from.
        text: the sentence, as the encoder leaves it.
        layer: which one, counted from the last: -1, -2 and so on.
    """

    hidden: Float[Tensor, "frames candidates width"]
    references: Float[Tensor, "frames candidates 4"]
    text: Float[Tensor, "frames tokens width"]
    layer: int = -1

    def select(self, frames: Sequence[int]) -> FrameStates:
        """The states of some frames, by their places."""
        places = torch.tensor(frames, device=self.hidden.device)
        return replace(self, hidden=self.hidden[places], references=self.references[places], text=self.text[places])

    def reordered(self, order: Int[Tensor, "frames chosen"]) -> FrameStates:
        """Each frame's candidates in an order of its own, all of them or some."""
        hidden, references = (
            torch.take_along_dim(each, order[..., None], dim=1) for each in (self.hidden, self.references)
        )
        return replace(self, hidden=hidden, references=references)

    @classmethod
    def joined(cls, parts: Sequence[FrameStates]) -> FrameStates:
        """Those of frames that went through the detector one part after another."""
        hidden, references, text = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("hidden", "references", "text")
        )
        return cls(hidden, references, text, parts[0].layer)


@dataclass(frozen=True)
class Candidates:
    """The candidates of one sub-clip.

    Attributes:
        logits: of being what the sentence describes.
        boxes_cxcywh: centre, width and height, as shares of the frame's sides.
    """

    logits: Float[Tensor, "frames candidates"]
    boxes_cxcywh: Float[Tensor, "frames candidates 4"]

    def best_track(self) -> Float[Tensor, "frames 4"]:
        """The boxes `x1, y1, x2, y2` of the track with the highest mean score, as shares of the frame's sides."""
        best = int(self.logits.sigmoid().mean(dim=0).argmax())
        return corners(self.boxes_cxcywh[:, best])


class SpatialGroundingModule(nn.Module):
    """Grounding DINO with GLFFM before its encoder and TEM after its decoder.

    Args:
        detector: transformers' Grounding DINO.
        global_width: width of the language model's video tokens.
    """

    def __init__(self, detector: GroundingDinoForObjectDetection, global_width: int) -> None:
        super().__init__()
        config = detector.config
        self.detector, self.global_width = detector, global_width
        heads = config.encoder_attention_heads
        self.fusion = GlobalLocalFusion(config.d_model, config.num_feature_levels, heads, global_width)
        self.enhancement = TemporalEnhancement(config.d_model, heads)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Those of GLFFM and TEM, which no checkpoint of the detector holds."""
        yield from self.fusion.parameters()
        yield from self.enhancement.parameters()

    def frame_states(
        self,
        pixels: Float[Tensor, "frames 3 height width"],
        phrase: Phrase,
        video_tokens: Float[Tensor, "tokens global_width"],
        num_layers: int = 1,
    ) -> tuple[FrameStates, ...]:
        """Read frames one by one.

        Args:
            pixels: frames of one video, all of one size, as its processor makes them.
            phrase: the sentence.
            video_tokens: the language model's tokens of the whole video.
            num_layers: of the decoder, counted from its end.

        Returns:
            The states of each layer, the last one first.
        """
        with self._fusing(video_tokens):
            output = self.detector.model(pixels, phrase.input_ids.expand(len(pixels), -1), return_dict=True)
        # A layer's boxes start from those of the layer before it, the first layer's from the encoder's proposals.
        references = [output.init_reference_points, *output.intermediate_reference_points.unbind(1)]
        text = output.encoder_last_hidden_state_text
        states = [
            FrameStates(output.intermediate_hidden_states[:, layer], references[layer - 1], text, layer)
            for layer in range(-1, -1 - num_layers, -1)
        ]
        return tuple(self._best(each, MAX_CANDIDATES) for each in states)

    def candidates(
        self, states: FrameStates, clips: Sequence[Sequence[int]], seconds: Sequence[float]
    ) -> list[Candidates]:
        """The candidates of sub-clips, in the order of tracks.

        Args:
            states: of all frames that stand in some clip.
            clips: for each sub-clip the places of its frames in `states`, in order of time.
            seconds: when each frame of `states` is.
        """
        device = states.hidden.device
        times = torch.tensor(seconds, dtype=torch.float32, device=device)
        places = [torch.tensor(clip, device=device) for clip in clips]
        tracked = [self.in_tracks(states.select(clip)) for clip in clips]
        hidden = pad_sequence([each.hidden for each in tracked], batch_first=True)
        since = pad_sequence([times[place] - times[place[0]] for place in places], batch_first=True)
        is_frame = pad_sequence([torch.ones_like(place, dtype=torch.bool) for place in places], batch_first=True)
        enhanced = self.enhancement(hidden, since, is_frame)
        return [
            self.plain_candidates(replace(each, hidden=one[: len(each.hidden)]))
            for one, each in zip(enhanced, tracked, strict=True)
        ]

    def plain_candidates(self, states: FrameStates) -> Candidates:
        """The detector's own heads on a layer's states: of its scores for each token, marks included, the highest."""
        every = torch.ones(states.text.shape[:2], dtype=torch.bool, device=states.text.device)
        logits = self.detector.class_embed[states.layer](states.hidden, states.text, every).max(dim=-1).values
        start = torch.special.logit(states.references, eps=1e-5)
        return Candidates(logits, (self.detector.bbox_embed[states.layer](states.hidden) + start).sigmoid())

    def in_tracks(self, states: FrameStates) -> FrameStates:
        """A clip's candidates in the order of tracks."""
        with torch.no_grad():
            plain = self.plain_candidates(states)
        return states.reordered(track_order(plain.logits.sigmoid(), plain.boxes_cxcywh))

    def _best(self, states: FrameStates, count: int) -> FrameStates:
        """The candidates of each frame with the highest scores; all, in their own order, where there are no more."""
        if states.hidden.shape[1] <= count:
            return states
        with torch.no_grad():
            scores = self.plain_candidates(states).logits
        return states.reordered(scores.topk(count, dim=1).indices)

    @contextmanager
    def _fusing(self, video_tokens: Float[Tensor, "tokens global_width"]) -> Iterator[None]:
        """Let the detector's encoder receive fused features."""

        def fuse(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
            shapes = [(int(height), int(width)) for height, width in kwargs["spatial_shapes_list"]]
            fused = self.fusion(kwargs["vision_features"], kwargs["vision_position_embedding"], shapes, video_tokens)
            return args, {**kwargs, "vision_features": fused}

        hook = self.detector.model.encoder.register_forward_pre_hook(fuse, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


@dataclass(frozen=True)
class SpatialGrounder:
    """The module, and what prepares its input; `adapter` is the module's, where it is being trained."""

    module: SpatialGroundingModule
    tokenizer: Any
    image_processor: GroundingDinoImageProcessor
    reading: FrameReading = FrameReading()
    adapter: PeftModel | None = None

    def read(
        self,
        frames: UInt8[Tensor, "frames height width 3"],
        query: str,
        video_tokens: Float[Tensor, "tokens global_width"],
        num_layers: int = 1,
    ) -> tuple[FrameStates, ...]:
        """Frames as the detector reads them, on the module's device and in its precision; see `frame_states`."""
        weights = next(self.module.parameters())
        phrase, tokens = self.phrase(query).to(weights.device), video_tokens.to(weights)
        is_recomputed = self.reading.recompute_activations and torch.is_grad_enabled()
        parts = []
        for some in frames.split(self.reading.frames_at_once):
            pixels = self.pixels(some.to(weights.device)).to(weights)
            given = pixels, phrase, tokens, num_layers
            if is_recomputed:
                parts.append(checkpoint(self.module.frame_states, *given, use_reentrant=False))
            else:
                parts.append(self.module.frame_states(*given))
        return tuple(map(FrameStates.joined, zip(*parts, strict=True)))

    def phrase(self, query: str) -> Phrase:
        """A query as one phrase: lower case, and a full stop nowhere but at its end."""
        text = re.sub(r"[.?!]+", " ", query.lower())
        return Phrase(torch.tensor(self.tokenizer(f"{' '.join(text.split())}.")["input_ids"]))

    def pixels(self, frames: UInt8[Tensor, "frames height width 3"]) -> Float[Tensor, "frames 3 rows columns"]:
        """Frames resized and normalised."""
        return self.image_processor(frames.permute(0, 3, 1, 2), return_tensors="pt")["pixel_values"]

    def save(self, folder: Path) -> None:
        """Save as a folder that `load_spatial` reads, the adapter merged into the detector's weights."""
        module = self.module if self.adapter is None else copy.deepcopy(self.adapter).merge_and_unload()
        module.detector.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        inserted = {"fusion": module.fusion, "enhancement": module.enhancement}
        save_file(
            {f"{name}.{key}": value for name, part in inserted.items() for key, value in part.state_dict().items()},
            folder / INSERTIONS_FILE,
        )
        (folder / MODULE_FILE).write_text(json.dumps({"global_width": self.module.global_width}) + "\n")


@dataclass(frozen=True)
class DetectorLora:
    """An adapter in the detector's linear layers.

    Attributes:
        rank: width of the low-rank update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: dropout on the update's input.
    """

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_rank(self.rank, self.alpha)


def adapt_detector(grounder: SpatialGrounder, lora: DetectorLora) -> SpatialGrounder:
    """Freeze the detector, put LoRA into its linear layers, and leave what is new to be trained."""
    module = grounder.module
    layers = [
        name
        for name, layer in module.named_modules()
        if name.startswith("detector.model.") and isinstance(layer, nn.Linear) and not NOT_ADAPTED.search(name)
    ]
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers)
    adapter = get_peft_model(module, config)
    for parameter in module.new_parameters():
        parameter.requires_grad_(True)
    return replace(grounder, module=module.train(), adapter=adapter)


def load_spatial(
    name: str, global_width: int, dtype: Dtype = "float32", reading: FrameReading | None = None
) -> SpatialGrounder:
    """Load a detector by name or folder, with GLFFM and TEM: as they were trained, or new, changing nothing yet.

    Args:
        name: `tiny` for the bundled detector, a folder, or a hub name such as `IDEA-Research/grounding-dino-base`.
        global_width: width of the language model's video tokens.
        dtype: precision of the weights.
        reading: how frames go through it.

    Raises:
        FileNotFoundError: no detector there.
        ValueError: a module that was trained beside a language model of another width.
    """
    place = str(TINY_DETECTOR_FOLDER) if name == TINY else name
    try:
        detector = GroundingDinoForObjectDetection.from_pretrained(place, dtype=DTYPES[dtype])
        tokenizer = AutoTokenizer.from_pretrained(place)
        image_processor = GroundingDinoImageProcessor.from_pretrained(place)
    except OSError as error:
        raise FileNotFoundError(f"no Grounding DINO at {name!r}: {error}") from error
    module = SpatialGroundingModule(detector, global_width).to(DTYPES[dtype])
    trained = Path(place) / MODULE_FILE
    if trained.is_file():
        width = json.loads(trained.read_text())["global_width"]
        if width != global_width:
            raise ValueError(f"{name} was trained with video tokens of width {width}, and these are {global_width}")
        missing, unexpected = module.load_state_dict(load_file(Path(place) / INSERTIONS_FILE), strict=False)
        assert not unexpected and all(key.startswith("detector.") for key in missing), (unexpected, missing)
    reading = reading or FrameReading()
    if reading.shortest_side_pixels is not None:
        before, shortest = image_processor.size, reading.shortest_side_pixels
        longest = round(shortest * before["longest_edge"] / before["shortest_edge"])
        image_processor.size = {"shortest_edge": shortest, "longest_edge": longest}
    return SpatialGrounder(module.eval(), tokenizer, image_processor, reading)
