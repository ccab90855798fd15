import torch

from namm_llm.pages import paged, release_free_pages


def test_a_tensor_in_pages_of_its_own_is_like_any_other() -> None:
    for like in (torch.empty(3, 5), torch.empty(0, 64, dtype=torch.int8), torch.empty(2, 0)):
        for rows in (0, 7, 100_003):
            found = paged(like, rows)
            assert found.shape == (rows, *like.shape[1:])
            assert found.dtype is like.dtype
            assert found.is_contiguous()
            found.fill_(3)
            assert found.eq(3).all()
            assert found.clone().data_ptr() != found.data_ptr() or not found.numel()


def test_pages_are_freed_with_the_last_view() -> None:
    for _ in range(200):  # 20 GB in all
        view = paged(torch.empty(0, 64), 400_000)[:10]
        view.zero_()
    release_free_pages()
    assert view.eq(0).all()
