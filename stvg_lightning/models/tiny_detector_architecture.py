"""The tiny detector's shape: a real Grounding DINO of less than a million parameters, its tokenizer and processor."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    ConvNextConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    PreTrainedTokenizerFast,
)

FRAME_SIDE = 64
WIDTH = 64
NUM_CANDIDATES = 10
MARKS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""BERT's own numbers: Grounding DINO tells phrases apart by these, which are fixed in its code."""

FIRST_WORD_ID = 103
FUSION_SCALE = 0.1
"""First weight of what text and picture tell each other; Grounding DINO begins with 1e-4, upon trained backbones."""


def build_detector_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A BERT tokenizer of the words of some texts; any other word is spelled.

    Args:
        texts: hold every word that is to be one token.
    """
    words = sorted({word for text in texts for word in text.lower().replace(".", " ").split()})
    spelled = [f"{prefix}{chr(code)}" for prefix in ("", "##") for code in range(33, 127) if chr(code) not in MARKS]
    vocabulary = dict(MARKS)
    for number, word in enumerate(dict.fromkeys([*words, *spelled]), start=FIRST_WORD_ID):
        vocabulary[word] = number
    last = max(vocabulary.values())
    assert FIRST_WORD_ID + len(words) + len(spelled) <= MARKS["."], "words reach into the numbers of the marks"
    vocabulary |= {f"[unused{i}]": i for i in range(last) if i not in vocabulary.values()}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(mark, MARKS[mark]) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def build_image_processor() -> GroundingDinoImageProcessor:
    """Grounding DINO's processor for frames of 64 pixels."""
    return GroundingDinoImageProcessor(size={"shortest_edge": FRAME_SIDE, "longest_edge": FRAME_SIDE}, do_pad=False)


def build_tiny_detector(tokenizer: PreTrainedTokenizerFast) -> GroundingDinoForObjectDetection:
    """The tiny detector with random weights; seed torch first for the same weights."""
    config = GroundingDinoConfig(
        backbone_config=ConvNextConfig(
            num_stages=3, hidden_sizes=[32, 64, 96], depths=[1, 2, 1], out_features=["stage2", "stage3"]
        ),
        text_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * WIDTH,
            max_position_embeddings=128,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        num_queries=NUM_CANDIDATES,
        d_model=WIDTH,
        encoder_layers=2,
        decoder_layers=3,
        encoder_ffn_dim=2 * WIDTH,
        decoder_ffn_dim=2 * WIDTH,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_feature_levels=2,
        max_text_len=128,
        dropout=0.0,
        fusion_droppath=0.0,
    )
    detector = GroundingDinoForObjectDetection(config)
    for layer in detector.model.encoder.layers:
        nn.init.constant_(layer.fusion_layer.vision_param, FUSION_SCALE)
        nn.init.constant_(layer.fusion_layer.text_param, FUSION_SCALE)
    return detector
