"""Numbers that stand for tokens in circuits wired by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def unit_codes(count: int, size: int, seed: int) -> Tensor:
    return nn.functional.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def of_angles(angles: Tensor) -> Tensor:
    """(..., 2 * angles): as much in each plane, so that what their turning costs can be given back."""
    return torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(-2) / angles.shape[-1] ** 0.5


def spread(angles: Tensor, kinds: Tensor, weights: Tensor, steps: int = 400) -> Tensor:
    """The angles (tokens, angles), changed so that no kind looks like another. kinds: (kinds, parts), tokens; weights: (parts)"""
    changed, here = torch.unique(kinds, return_inverse=True)
    chosen = nn.Parameter(angles[changed])
    optimizer = torch.optim.Adam([chosen], lr=0.05)
    for _ in range(steps):
        parts = of_angles(chosen)[here]
        alike = torch.einsum("ipc,jpc,p->ij", parts, parts, weights)
        torch.logsumexp(20 * (alike - 9 * torch.eye(len(kinds))).flatten(), 0).backward()
        optimizer.step()
        optimizer.zero_grad()
    return angles.index_copy(0, changed, chosen.detach())


def rounded(value: float) -> float:
    return torch.tensor(value).bfloat16().item()


def exact(codes: Tensor, scale: Tensor) -> Tensor:
    """Of each token's codes (tries, tokens, size) the one that is most nearly as long as 1 still when it is scaled and rounded to
    bfloat16."""
    best = ((codes * scale[:, None]).bfloat16().float().norm(dim=2) / scale - 1).abs().argmin(dim=0)
    return codes[best, torch.arange(len(scale))]


def turns_of_pairs(count: int, pairs: int) -> Tensor:
    """(count, 2 * pairs, 2 * pairs): pair p turned by p + 1 of `count` parts of a circle, once, twice, ..."""
    angle = torch.arange(count)[:, None] * torch.arange(1, pairs + 1) * 2 * torch.pi / count
    turned = torch.zeros(count, 2 * pairs, 2 * pairs)
    first, second = torch.arange(0, 2 * pairs, 2), torch.arange(1, 2 * pairs, 2)
    turned[:, first, first] = turned[:, second, second] = angle.cos()
    turned[:, first, second], turned[:, second, first] = -angle.sin(), angle.sin()
    return turned


def spoken(heard: Tensor, size: int, steps: int = 120) -> tuple[Tensor, Tensor]:
    """A code of each token (vocabulary, size), and what it adds to the states to be said (channels, size).

    heard: (vocabulary, channels), what the head listens to. Found by gradients: it must hear each token best.
    """
    wanted = nn.functional.normalize(heard - heard.mean(dim=0), dim=1)
    *_, basis = torch.linalg.svd(wanted, full_matrices=False)
    speech = nn.Parameter(basis[:size].T.clone())
    codes = nn.Parameter(nn.functional.normalize(wanted @ speech.detach(), dim=1))
    optimizer = torch.optim.Adam([speech, codes], lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        tokens = torch.randint(len(codes), (1024,), generator=generator)
        said = nn.functional.normalize(nn.functional.normalize(codes[tokens], dim=1) @ speech.T, dim=1)
        nn.functional.cross_entropy(20 * said @ heard.T, tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    codes = nn.functional.normalize(codes.detach(), dim=1)
    return codes, speech.detach() / (codes @ speech.detach().T).norm(dim=1).mean()
