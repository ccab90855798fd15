import torch

from namm_llm.tokens import HeadTokens, RaggedTokens


def head(*, tokens: int, seed: int, quantised: bool) -> HeadTokens:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, tokens, 6, generator=generator)
    positions = torch.arange(tokens, dtype=torch.int32)
    made = HeadTokens(keys, values, positions, torch.randn(tokens, 2, generator=generator))
    return made.quantised() if quantised else made


def test_tokens_in_parts_are_gathered_as_those_in_one_piece() -> None:
    kept = [None, torch.tensor([0, 2, 3, 10, 12]), torch.tensor([9]), torch.tensor([], dtype=int)]
    for quantised in (False, True):
        parts = [
            [head(tokens=n, seed=10 * g + n, quantised=quantised) for n in lengths]
            for g, lengths in enumerate([(3, 4), (3, 10), (0, 10), (5,)])
        ]
        found = RaggedTokens.gather_parts(parts, kept)
        wanted = RaggedTokens.gather([HeadTokens.joined(each) for each in parts], kept)
        assert found.lengths == wanted.lengths == (7, 5, 1, 0)
        for name, column in wanted.columns().items():
            torch.testing.assert_close(found.columns()[name], column, rtol=0, atol=0)
