"""The tokenizer: byte-level BPE in which newlines and digits stand alone, and the chat template."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END = SPECIAL = (
    "<bos>", "<eos>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
    """Trains the vocabulary.

    A newline is always its own token, so text tokenised in two parts that meet at a newline comes
    out the same as in one. A digit takes its leading space along: no bare space stands between a
    key and its value.
    """
    core = Tokenizer(models.BPE())
    alone = pre_tokenizers.Split(Regex(r"\n| ?\d"), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [alone, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return extend_tokenizer(core)


def extend_tokenizer(core: Tokenizer) -> Tokenizer:
    """With the special tokens that it lacks, and `<bos>` before a text."""
    core.add_special_tokens(list(SPECIAL))
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return core


def wrap(core: Tokenizer, positions: int) -> PreTrainedTokenizerFast:
    """With the special tokens' roles and the chat template, as transformers loads it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=END, pad_token=PAD,
        chat_template=CHAT_TEMPLATE, additional_special_tokens=[EOS, SYSTEM, USER, ASSISTANT],
        model_max_length=positions,
        ask_prompt="{question}",  # as the dialogues of the training data have it
    )  # fmt: skip


class Encoder:
    """Text to ids without `<bos>`, with the special tokens by name."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.core: Tokenizer = tokenizer.backend_tokenizer
        self.bos, self.pad, self.end = (self.core.token_to_id(token) for token in (BOS, PAD, END))
        self.newline = self("\n")[0]

    def __call__(self, text: str) -> list[int]:
        return self.core.encode(text, add_special_tokens=False).ids

    def batch(self, texts: list[str]) -> list[list[int]]:
        return [
            encoding.ids
            for encoding in self.core.encode_batch_fast(texts, add_special_tokens=False)
        ]
