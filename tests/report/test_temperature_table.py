"""The temperature table is the softmax of a real row's logits, divided by tau."""

import numpy as np
import pytest
from scipy.special import softmax

from teachonce.report import gallery, temperature_table
from teachonce.shards import index
from teachonce.store import store_reader


def test_a_whole_row_is_softened_exactly(whole):
    cache, shards = store_reader.open(whole.root / "cache/train.zarr"), index.read(whole.root / "shards")
    names = [f"class {number}" for number in range(8)]
    table = temperature_table.tabulate_temperatures(cache, gallery.collect_views(shards, cache, names))
    logits = cache.rows([table.card.key], table.card.aug_seed).logits_BC[0].astype(np.float64)
    for column, tau in enumerate(temperature_table.TAUS):
        p = softmax(logits / tau)
        order = np.argsort(-logits, kind="stable")
        shown = [row.probabilities[column] for row in table.rows]
        assert shown[:-1] == pytest.approx(p[order[:5]], abs=1e-6)
        assert sum(shown) == pytest.approx(1)
    assert [row.name for row in table.rows[:-1]] == [names[number] for number in order[:5]]
    assert table.rows[-1].name == "the other 3 together"


def test_kept_rows_are_softened_with_their_tail(top3, coded):
    for world in (top3, coded):
        cache, shards = store_reader.open(world.root / "cache/train.zarr"), index.read(world.root / "shards")
        views = gallery.collect_views(shards, cache, shards.index.classes)
        table = temperature_table.tabulate_temperatures(cache, views)
        assert table.card == min(views.cards, key=lambda card: card.answers[0].probability)
        for column in range(len(temperature_table.TAUS)):
            assert sum(row.probabilities[column] for row in table.rows) == pytest.approx(1)
