"""Circuits that list all records of a kind, wired by hand beside a model that looks records up already.

Training never found them (docs/log.md). What each layer does:

0. a token fetches codes of the token before and of the one before that; `<|assistant|>` counts the turns
1. the code of the third token before; `<|assistant|>` sees whether a list is asked for; " of" makes the three before it a kind
2. names fetch the kind from their " of"; tokens fetch from `<|assistant|>` which turn it is, and whether it lists
3. names count the records of their kind before them, or the lines said: attention to <bos> is one over their number plus one.
   The kind, turned by the number, is the record's place
4. an answer looks for the record of its own place, at the token behind the one that it just said; "." looks whether there is one

Logits are `code.code - length.length`, where code and length went through the same norms: 0 if the codes are the same, whatever the
norms made of them, and below if not. So all that match weigh the same, and can be counted. Kinds are compared by planes that turn by
less than half a radian in 10 000 positions; what is compared nearby takes faster ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from namm_llm.tasks.records import NUMBER_KINDS, WORD_KINDS
from recipes.namm_tiny.codes import exact, of_angles, rounded, spoken, spread, turns_of_pairs, unit_codes
from recipes.namm_tiny.tokenizer import ASSISTANT, END, USER, Encoder
from recipes.namm_tiny.wiring import HEADS, UNIT, Channels, Layer, Row, lengths, widen

LAYERS = 5
CODE, WORD, CONTENT = 4, 8, 34
"""Numbers that code a token: in a kind, as the token before, and as one to say."""
MOST, TURNS = 9, 9
"""Records of a kind, and turns, that are told apart."""
LESS = 0.75
"""What the second token of a kind weighs: with the first it has the length 1.25, which bfloat16 can say."""
SIZES = {
    # what a token begins with
    "pos": 1, "pos_rest": 1, "bos": 1, "of": 1, "is": 1, "dot": 1, "assistant": 1, "user": 1, "article": 1, "asks": 1, "asked": 1,
    "newline": 1,
    "code": CODE, "word": WORD, "content": CONTENT,
    # from layer 0: of the token before (a) and the one before that (b)
    "one": 1, "a_word": WORD, "a": CODE, "b": CODE, "a_article": 1, "b_article": 1, "a_asked": 1, "a_is": 1,
    "turns": 1, "own_turn": CODE, "own_turned": 1,
    # from layer 1
    "c": CODE, "c_one": 1, "own_list": 1, "kind": 3 * CODE, "kind_ab": 1, "kind_c": 1,
    # from layer 2
    "turn": CODE, "turned": 1, "reads": 1, "document": 1, "list": 1, "no_kind": 1, "no_value": 1, "no_list": 1,
    # from layers 3 and 4
    "share": 1, "place": 2 * CODE, "place_b": 1, "place_c": 1, "found": 1,
}  # fmt: skip
CHANNELS = Channels.of(SIZES)
NEAR_OF = {
    3: 0.032, 4: 0.016, 5: 0.019, 6: 0.055, 7: 0.118, 8: 0.091, 9: 0.086, 10: 0.079, 11: 0.086, 12: 0.044, 13: 0.056,
    14: 0.034, 15: 0.037, 16: 0.037, 17: 0.037, 18: 0.04, 19: 0.039, 20: 0.012, 21: 0.011, 22: 0.071,
}  # fmt: skip
NEAR_ASSISTANT = {
    6: 0.012, 7: 0.027, 8: 0.04, 10: 0.041, 11: 0.122, 12: 0.094, 13: 0.06, 14: 0.072, 15: 0.109, 16: 0.078,
    17: 0.071, 18: 0.079, 19: 0.016, 20: 0.061, 21: 0.027, 22: 0.091,
}  # fmt: skip
NEAR_QUESTION = {
    5: 0.008, 6: 0.098, 7: 0.094, 8: 0.102, 9: 0.08, 10: 0.075, 11: 0.06, 12: 0.058, 13: 0.069, 14: 0.031, 15: 0.023,
    16: 0.032, 17: 0.046, 18: 0.128, 20: 0.053, 21: 0.043,
}  # fmt: skip
"""Weights of planes. Their sums of cosines fall with the distance, by at least 0.018 for 3 tokens, 0.014 for 12 and 0.3 for 25, up to 22,
200 and 20 tokens, and are 0.3, 0.2 and 0.3 lower everywhere from 48, 1 000 and 45 tokens to 32 768: found by linear programs."""
SHARP = 800.0
"""How steeply counts are told apart."""
SAY, CLOSE, BEGIN = 500.0, 1500.0, 0.6
"""How loud the next token of a list is, what ends a line of it, and "The" at its beginning, beside states of length 250. BEGIN only
tips the scales where the model is not sure whether the list has numbers."""


def names(name: str) -> list[str]:
    return [name] if SIZES[name] == 1 else [f"{name}{i}" for i in range(SIZES[name])]


def unfit(model: LlamaForCausalLM) -> str | None:
    """Why the circuits cannot be wired beside a model."""
    config = model.config
    if config.num_hidden_layers < LAYERS:
        return f"they take {LAYERS} layers, the model has {config.num_hidden_layers}"
    if config.num_attention_heads != HEADS * config.num_key_value_heads or config.head_dim != 64:
        return f"they take {HEADS} query heads of size 64 for each KV head"
    return None


class ListCircuits:
    """`sample`: (tokens), a text that begins with <bos>, to see how long the model's states are."""

    def __init__(self, model: LlamaForCausalLM, encode: Encoder, sample: Tensor) -> None:
        if reason := unfit(model):
            raise ValueError(f"no circuits for lists: {reason}")
        self.model, self.encode = model, encode
        self.half = model.config.head_dim // 2
        self.frequency = model.config.rope_parameters["rope_theta"] ** (-torch.arange(self.half) / self.half)
        self.layers = [Layer(CHANNELS, self.frequency) for _ in range(model.config.num_hidden_layers)]
        self.fast = {plane: float(self.frequency[plane] ** 0.5) for plane in range(14)}
        self.fast = {plane: weight / sum(self.fast.values()) for plane, weight in self.fast.items()}
        read = lengths(model, sample)
        self.typical, self.at_bos = read[:, 1:].mean(dim=1), read[:, 0]
        self.begins = model.model.embed_tokens.weight.detach().norm(dim=1)
        self.typical[0] = self.begins.mean()
        self.scale = UNIT * self.begins / self.typical[0]
        """(vocabulary) what reads as 1 in layer 0; the longer a token's embedding, the larger"""

    def install(self) -> LlamaForCausalLM:
        table = self.embed()
        for layer, wire in zip(self.layers, (self.look_back, self.find_kinds, self.fetch_kinds, self.count, self.say_next), strict=False):
            wire(layer)
        return widen(self.model, self.layers, table, self.typical)

    def bos_reads(self, layer: int) -> float:
        """What a 1 that <bos> begins with reads as at the attention of a layer."""
        return (self.scale[self.encode.bos] / UNIT * self.typical[2 * layer] / self.at_bos[2 * layer]).item()

    # --- what tokens begin with

    def embed(self) -> Tensor:
        """(vocabulary, channels)"""
        encode, bos = self.encode, self.encode.bos
        table = torch.zeros(len(self.begins), len(CHANNELS.index))

        def put(name: str, values: Tensor) -> None:
            table[:, [CHANNELS.index[part] for part in names(name)]] = values

        def flag(name: str, *texts: str) -> list[int]:
            tokens = [encode(text)[-1 if text == "List" else 0] for text in texts]
            table[tokens, CHANNELS.index[name]] = 1.0
            return tokens

        table[:, CHANNELS.index["pos"]] = 1.0
        table[bos, CHANNELS.index["pos"]], table[bos, CHANNELS.index["bos"]] = 0.0, 1.0
        same = flag("of", " of", " for"), flag("article", " the", "The", " The")
        (dot,) = flag("dot", ".")
        flag("is", " is")
        flag("newline", "\n")
        flag("assistant", ASSISTANT)
        flag("user", USER)
        flag("asks", " all", " are", " stated")  # "List all ...", "What are ...", "Which ... are stated"
        flag("asked", "List", "What", " are")
        heard = (self.model.lm_head.weight * self.model.model.norm.weight).detach()
        content, self.speech = spoken(heard, CONTENT)
        # beside its own length a token has those of its codes, and of each flag
        lengths_squared = 3 + (table**2).sum(dim=1)
        self.scale /= (1 - lengths_squared * (UNIT / self.typical[0]) ** 2).sqrt()
        known = torch.tensor([self.parts(kind) for kind in (*NUMBER_KINDS, *WORD_KINDS)])
        generator = torch.Generator().manual_seed(1)
        angles = torch.rand(len(table), CODE // 2, generator=generator) * 2 * torch.pi
        angles = spread(angles, known, torch.tensor([1, LESS**2, 1]))
        for first, *others in same:
            angles[others] = angles[first].clone()
        code = exact(of_angles(angles + 0.02 * torch.randn(64, *angles.shape, generator=generator)), self.scale)
        word = exact(torch.stack([unit_codes(len(table), WORD, 2000 + i) for i in range(64)]), self.scale)
        for first, *others in same:
            word[others] = word[first].clone()
        code[bos], word[bos], content[bos] = 0.0, 0.0, 0.0  # who finds nothing looks there
        word[dot] = 0.0  # asks for no token, but whether there is a record
        for name, values in (("code", code), ("word", word), ("content", content)):
            put(name, values)
        table *= self.scale[:, None]
        pos = table[:, CHANNELS.index["pos"]]
        table[:, CHANNELS.index["pos_rest"]] = pos - pos.bfloat16().float()
        return table

    def parts(self, kind: str) -> list[int]:
        """The tokens before " of", the nearest first."""
        return self.encode(f" the the {kind}")[:-4:-1]

    # --- parts of circuits

    def look(self, layer: Layer, head: int, back: int, who: Row) -> None:
        """The head looks `back` tokens back; never at <bos>."""
        layer.near(head, self.fast, 200.0, who, "pos", back)
        layer.match(head, 31, {name: -200.0 * weight for name, weight in who.items()}, {"pos": 1.0})
        layer.match(head, 63, {name: -100.0 * weight for name, weight in who.items()}, {"bos": 1.0})

    def compare(
        self, layer: Layer, strength: float, query: Sequence[str], key: Sequence[str], planes: Sequence[int], head: int = 0
    ) -> None:
        """Adds strength * query.key, two numbers a plane."""
        dims = [dim for plane in planes for dim in (plane, plane + self.half)]
        for asked, found, dim in zip(query, key, dims, strict=True):
            layer.match(head, dim, {asked: strength}, {found: 1.0})

    def refer(self, layer: Layer, strength: float, lengths: tuple[str, str], plane: int, head: int = 0) -> None:
        """Subtracts strength * length.length of two lengths. They share a plane, whose turning makes as much of the one as of the other,
        with opposite signs."""
        for name, dim in zip(lengths, (plane, plane + self.half), strict=True):
            layer.match(head, dim, {name: -strength}, {name: 1.0})

    def number(self, layer: Layer, share: str, codes: Tensor, inputs: Sequence[str], into: Sequence[str], first: int) -> None:
        """Writes codes[n - first] @ inputs, where `share` is one over n plus one, n from `first`; nothing beyond the last.

        codes: (numbers, outputs, inputs)
        """
        rise, written = {"one": 2.0}, torch.zeros_like(codes[0])
        for i, code in enumerate([*codes, torch.zeros_like(codes[0])]):
            change = (code - written).bfloat16().float()  # the next step mends what rounding leaves
            for column, name in enumerate(inputs):
                down = {target: value for target, value in zip(into, change[:, column].tolist(), strict=True) if value}
                if down:
                    layer.step(rise, "pos", {name: 1.0}, down)
            rise, written = {"one": SHARP / (first + i + 1.5), share: -SHARP}, written + change

    # --- layers

    def look_back(self, layer: Layer) -> None:
        self.look(layer, 0, 1, {"pos": 1.0})
        self.look(layer, 1, 2, {"pos": 1.0, "assistant": -1.0})
        layer.match(1, 30, {"assistant": 40.0}, {"assistant": 1.0, "bos": 1.0})
        layer.fetch([0], "pos+pos_rest", ["one"])
        layer.fetch([0], "is", ["a_is"])
        layer.fetch([0], "asked", ["a_asked"])
        for source, target in zip(names("word"), names("a_word"), strict=True):
            layer.fetch([0], source, [target])
        for source, a, b in zip(names("code"), names("a"), names("b"), strict=True):
            layer.fetch([0, 1], source, [a, b])
        layer.fetch([0, 1], "article", ["a_article", "b_article"])
        layer.fetch([1], "bos", ["turns"])
        codes = turns_of_pairs(TURNS, CODE // 2) @ of_angles(torch.zeros(CODE // 2))
        self.number(layer, "turns", codes[..., None], ["assistant"], names("own_turn"), 1)
        layer.step({"one": 2.0}, "pos", {"assistant": 1.0}, {"own_turned": 1.0})

    def find_kinds(self, layer: Layer) -> None:
        self.look(layer, 0, 2, {"pos": 1.0})
        layer.near(1, NEAR_QUESTION, 60.0, {"assistant": 1.0}, "pos")
        layer.match(1, 31, {"assistant": -60.0})
        layer.match(1, 30, {"assistant": 100.0}, {"asks": 1.0, "pos": -1.0, "a_asked": 1.0, "one": -1.0})
        layer.match(1, 63, {"pos": 25.0, "assistant": -48.0})  # all others look at <bos>
        for source, target in zip(names("a"), names("c"), strict=True):
            layer.fetch([0], source, [target])
        layer.fetch([0, 1], "one", ["c_one", "own_list"])
        # what stands before "the" is no part of a kind, but "the" is: it says that the kind begins there
        here = {"of": 1.0, "one": -0.5}
        short = {**here, "b_article": -1.0}
        for part, (mask, weight) in zip("abc", ((here, 1.0), (here, LESS), (short, 1.0)), strict=True):
            for i, source in enumerate(names(part)):
                layer.gated(mask, {source: 1.0}, {f"kind{'abc'.index(part) * CODE + i}": weight})
        layer.gated(here, {"one": 1.0}, {"kind_ab": (1 + LESS**2) ** 0.5})
        layer.gated(short, {"c_one": 1.0}, {"kind_c": 1.0})
        one_token = {"of": 1.0, "b_article": 1.0, "one": -1.5}
        for i, source in enumerate(names("b")):
            layer.gated(one_token, {source: 1.0}, {f"kind{2 * CODE + i}": 1.0})
        layer.gated(one_token, {"one": 1.0}, {"kind_c": 1.0})

    def fetch_kinds(self, layer: Layer) -> None:
        """Names end at " is" and ".": what follows has no kind, but for "." itself, " is" and the token behind it."""
        layer.near(0, NEAR_OF, 600.0, {"pos": 1.0}, "pos")
        layer.match(0, 29, {"pos": -600.0}, {"pos": 1.0})
        layer.match(0, 31, {"pos": 500.0}, {"of": 1.0, "is": 1.0, "dot": 1.0, "pos": -1.0})
        layer.match(0, 63, {"is": -600.0, "dot": -600.0, "a_is": -600.0}, {"is": 1.0})
        layer.match(0, 61, {"dot": -600.0}, {"dot": 1.0})
        layer.match(0, 62, {"pos": -250.0 / self.bos_reads(2)}, {"bos": 1.0})
        layer.near(1, NEAR_ASSISTANT, 700.0, {"pos": 1.0}, "pos")
        layer.match(1, 29, {"pos": -700.0})
        layer.match(1, 30, {"pos": 800.0}, {"assistant": 1.0, "user": 1.0, "pos": -1.0})
        layer.match(1, 62, {"pos": -400.0 / self.bos_reads(2)})
        for name in (*names("kind"), "kind_ab", "kind_c"):
            layer.fetch([0], name, [name])
        for source, target in zip((*names("own_turn"), "own_turned", "own_list"), (*names("turn"), "turned", "list"), strict=True):
            layer.fetch([1], source, [target])
        layer.fetch([1], "user", ["reads"])
        layer.fetch([1], "bos", ["reads"], 1 / self.bos_reads(2))
        layer.gated({"reads": 1.0, "one": -0.5, "bos": -4.0}, {"one": 1.0}, {"document": 1.0})
        layer.gated({"one": 0.5, "kind_ab": -1.0}, {"one": 1.0}, {"no_kind": 1.0})
        layer.gated({"one": 0.5, "a_is": -1.0}, {"one": 1.0}, {"no_value": 1.0})
        layer.gated({"one": 0.5, "list": -1.0}, {"one": 1.0}, {"no_list": 1.0})

    def count(self, layer: Layer) -> None:
        """Counts the tokens behind " is" that have the same kind: those of documents in documents, those of its turn in an answer."""
        kind, strength = names("kind"), 14.0
        planes = ((28, 29), (26, 27), (24, 25))
        for part, places in enumerate(planes):
            parts = kind[part * CODE : (part + 1) * CODE]
            self.compare(layer, strength, parts, parts, places)
        # What matches turns away with the distance, squared. Of its length so much turns faster that the difference stays 0.
        squares = self.frequency**2
        a, b, c = (float(sum(squares[plane] for plane in places)) / 2 for places in planes)
        ab = (a + LESS**2 * b) / (1 + LESS**2)
        for name, dim, square, faster in (("kind_ab", 31, ab, 21), ("kind_c", 63, c, 22)):
            slow = rounded(strength * (1 - square / float(squares[faster])))
            layer.match(0, dim, {name: -slow}, {name: 1.0})
            layer.match(0, faster, {name: slow - strength}, {name: 1.0})
        layer.match(0, 30, {"one": -60.0}, {"no_value": 1.0, "no_kind": 1.0})
        layer.match(0, 23, {"turned": -60.0}, {"document": 1.0})
        layer.match(0, 17, {"document": -60.0}, {"turned": 1.0})
        self.compare(layer, 40.0, names("turn"), names("turn"), (19, 20))
        layer.match(0, 18, {"turned": -40.0}, {"turned": 1.0})
        layer.fetch([0], "bos", ["share"], 1 / self.bos_reads(3))
        codes = turns_of_pairs(MOST, CODE)
        self.number(layer, "share", codes, kind[CODE:], names("place"), 0)
        layer.step({"one": 2.0}, "pos", {"kind_ab": LESS / (1 + LESS**2) ** 0.5}, {"place_b": 1.0})
        layer.step({"one": 2.0}, "pos", {"kind_c": 1.0}, {"place_c": 1.0})

    def say_next(self, layer: Layer) -> None:
        """The second head asks in documents too, and says nothing: policies that look at attention see what a list would need."""
        no = -8.0
        who: Row = {"no_kind": -6000.0, "is": -6000.0, "a_is": -6000.0}
        for head, only in ((0, {"no_list": -6000.0}), (1, {})):
            self.compare(layer, 800.0, names("place"), names("place"), (26, 27, 28, 29), head)
            self.refer(layer, 800.0, ("place_b", "place_c"), 30, head)
            self.compare(layer, 60.0, names("word"), names("a_word"), (22, 23, 24, 25), head)
            self.compare(layer, 8.0, names("a"), names("b"), (19, 20), head)
            layer.match(head, 21, {"dot": 40.0}, {"is": 1.0})  # whether there is a record: it has an " is"
            layer.match(
                head, 31, {"one": 100.0},
                {"one": -0.8, "dot": no, "a_is": no, "no_kind": no, "turned": no, "bos": -0.6 / self.bos_reads(4)},
            )  # fmt: skip
            layer.match(head, 63, {**who, **only}, {"one": 1.0})
        layer.fetch([0], "one", ["found"])
        for i, source in enumerate(names("content")):
            layer.say(0, source, SAY * self.speech[:, i])
        heard = (self.model.lm_head.weight * self.model.model.norm.weight).detach()
        newline, end, the = (nn.functional.normalize(heard[self.encode(text)[0]], dim=0) for text in ("\n", END, "The"))
        gate = {"dot": 40.0, "one": -20.0, "no_list": -1000.0, "no_kind": -1000.0}
        layer.tell(gate, {"found": 1.0, "one": -0.5}, CLOSE * (newline - end))
        layer.tell({"newline": 40.0, "one": -20.0, "no_list": -1000.0}, {"one": 1.0}, BEGIN * the)
