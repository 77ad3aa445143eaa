"""Token frequencies of texts, tables and the model itself; and what can't be used as such."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from st_embfilter.checkpoint.checkpoint import find_checkpoint
from st_embfilter.checkpoint.language_model import load_language_model
from st_embfilter.errors import CheckpointError, TokenTableError
from st_embfilter.inspection.token_distribution import (
    BATCH,
    count_tokens,
    next_token_distribution,
    read_table,
    smoothed_log,
)
from support.models import byte_level_tokenizer, tiny_llama

SIZE = 411


def test_counts_without_special_tokens() -> None:
    tokenizer = byte_level_tokenizer(bos=True, eos=True)
    texts = ["two dogs run", "two cats", "Où ?"]
    expected = Counter(i for text in texts for i in tokenizer(text)["input_ids"][1:-1])
    found = count_tokens(iter(texts), tokenizer, SIZE)
    assert {i: int(n) for i, n in enumerate(found) if n} == dict(expected)
    assert found[[1, 2]].tolist() == [0, 0] and found.shape == (SIZE,)


def test_tokens_without_a_row_are_not_counted() -> None:
    tokenizer = byte_level_tokenizer()
    (last,) = tokenizer("dogs", add_special_tokens=False)["input_ids"][-1:]
    assert count_tokens(["dogs"], tokenizer, last).shape == (last,)


def test_texts_are_counted_a_batch_at_a_time() -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for _ in range(3 * BATCH):
            taken += 1
            yield "two dogs"

    class Watched:
        most = 0

        def __call__(self, batch: list[str], **_: object) -> dict[str, list[list[int]]]:
            self.most = max(self.most, len(batch))
            return {"input_ids": [[5, 6] for _ in batch]}

    watched = Watched()
    assert count_tokens(texts(), watched, 9)[5] == taken == 3 * BATCH  # type: ignore[arg-type]
    assert watched.most == BATCH


def test_tables(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    ids = tokenizer("two dogs", add_special_tokens=False)["input_ids"]
    path = tmp_path / "table.json"
    counts = Counter(tokenizer.convert_ids_to_tokens(ids))
    path.write_text(json.dumps(counts))
    assert torch.equal(
        read_table(path, tokenizer, SIZE), count_tokens(["two dogs"], tokenizer, SIZE)
    )
    path.write_text(json.dumps([0.5, *[0] * (SIZE - 1)]))
    assert read_table(path, tokenizer, SIZE)[:2].tolist() == [0.5, 0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('"text"', "neither an object"),
        ("{}", "counts no token"),
        ('{"a": 0}', "counts no token"),
        ('{"a": -1}', r"-1 is not a count"),
        ('{"a": NaN}', "nan is not a count"),
        ('{"a": Infinity}', "inf is not a count"),
        ('{"a": true}', "True is not a count"),
        ('{"a": "many"}', "'many' is not a count"),
        ('{"a": 3, "Zürich": 1, "Ulm": 2}', r"2 of 3 tokens are not .* \(first: 'Zürich'\)"),
        ("[1, 2, 3]", "3 counts, and the model 411 tokens"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "table.json").write_text(content, encoding="utf-8")
    with pytest.raises(TokenTableError, match=words):
        read_table(tmp_path / "table.json", byte_level_tokenizer(), SIZE)


def test_tables_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(TokenTableError, match="No such file"):
        read_table(tmp_path / "missing.json", byte_level_tokenizer(), SIZE)
    (tmp_path / "latin.json").write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(TokenTableError, match="UTF-8"):
        read_table(tmp_path / "latin.json", byte_level_tokenizer(), SIZE)


counted = st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any)


@given(counted, st.floats(0.001, 1000))
def test_smoothed_is_a_distribution_in_the_same_order(counts: list[int], unit: float) -> None:
    given_counts = torch.tensor(counts, dtype=torch.float64)
    log_p = smoothed_log(given_counts)
    assert log_p.isfinite().all() and float(log_p.exp().sum()) == pytest.approx(1)
    seen = given_counts > 0
    ratio = log_p[seen].exp() / given_counts[seen]
    torch.testing.assert_close(ratio, ratio[:1].expand(len(ratio)))
    assert len(set(log_p[~seen].tolist())) <= 1
    # Shares are smoothed as counts are.
    torch.testing.assert_close(smoothed_log(given_counts * unit), log_p)


def test_smoothing_of_witten_and_bell() -> None:
    # 6 occurrences of 2 tokens: 2 of 8 go to those never seen.
    found = smoothed_log(torch.tensor([4.0, 2.0, 0.0, 0.0]).double() / 2 * 2)
    torch.testing.assert_close(found.exp()[2:], torch.tensor([0.2, 0.2]).double())
    every = torch.tensor([3.0, 1.0]).double()
    torch.testing.assert_close(smoothed_log(every).exp(), every / 4)


def test_of_the_model_itself(tmp_path: Path) -> None:
    model, tokenizer = load_language_model(
        find_checkpoint(tiny_llama(tmp_path / "m")), device="cpu"
    )
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[1]])).logits[0, -1].double().softmax(dim=0)
    torch.testing.assert_close(next_token_distribution(model, tokenizer).exp(), expected)
    tokenizer.bos_token = None
    from_eos = next_token_distribution(model, tokenizer)
    assert not torch.allclose(from_eos.exp(), expected)
    assert float(from_eos.exp().sum()) == pytest.approx(1)
    tokenizer.eos_token = None
    with pytest.raises(CheckpointError, match="neither BOS nor EOS"):
        next_token_distribution(model, tokenizer)
