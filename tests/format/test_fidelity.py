import numpy as np
import pytest

from teachonce.format import codec, fidelity, fidelity_measurement

C = 30


def logits(count: int, seed: int = 0) -> np.ndarray:
    bits = np.random.Philox(key=seed).random_raw(count * C).reshape(count, C)
    return ((bits >> np.uint64(11)) * 2.0**-53 * 12).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def expected(logits_BC: np.ndarray, k: int, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """TV and KL of each row, in float64, from the definition and from float32 logits alone."""
    wide = logits_BC.astype(np.float64)
    p, q1 = softmax(wide / tau), softmax(wide)
    for row in q1:
        order = np.argsort(-row, kind="stable")
        row[order[k:]] = min(row[order[k:]].mean(), row[order[k - 1]])
    q = softmax(np.log(q1) / tau)
    return np.abs(p - q).sum(axis=1) / 2, (p * np.log(p / q)).sum(axis=1)


def test_agrees_with_numpy():
    statistics = fidelity.distance_statistics(fidelity_measurement.measure_rows(logits(50), codec.pack(logits(50), 10)))
    assert set(statistics) == {f"k={k},tau={tau}" for k in (10, 5, 2) for tau in (1, 2, 3, 5, 10)}
    for name, values in statistics.items():
        k, tau = (int(part.split("=")[1]) for part in name.split(","))
        tv, kl = expected(logits(50), k, tau)
        assert values["tv_mean"] == pytest.approx(tv.mean(), rel=5e-3, abs=3e-4), name
        assert values["kl_mean"] == pytest.approx(kl.mean(), rel=5e-3, abs=3e-5), name
        for kind, exact in (("tv", tv), ("kl", kl)):
            p99 = np.sort(exact)[int(np.ceil(0.99 * len(exact))) - 1]
            assert p99 * 0.995 - 1e-3 <= values[f"{kind}_p99"] <= p99 * 1.23 + 1e-3, name


def test_fewer_classes_are_further_away():
    statistics = fidelity.distance_statistics(fidelity_measurement.measure_rows(logits(50), codec.pack(logits(50), 10)))
    for tau in fidelity.TAUS:
        means = [statistics[f"k={k},tau={tau}"]["kl_mean"] for k in (10, 5, 2)]
        assert means == sorted(means)


def test_whole_rows_lose_nothing_and_need_no_measure():
    assert fidelity_measurement.measure_rows(logits(3), codec.pack(logits(3), "all")) == {}
    assert fidelity.distance_statistics({}) == {}


@pytest.mark.parametrize("cut", [1, 20, 49])
def test_parts_add_up_to_the_whole(cut):
    def measured(part: np.ndarray) -> dict:
        return fidelity_measurement.measure_rows(part, codec.pack(part, 7))

    whole = measured(logits(50))
    parts = fidelity.sum_distances([measured(logits(50)[:cut]), {}, measured(logits(50)[cut:])])
    assert parts.keys() == whole.keys()
    for name, total in whole.items():
        assert parts[name].views == total.views == 50
        assert parts[name].tv_bins == total.tv_bins
        assert parts[name].kl_bins == total.kl_bins
        assert parts[name].tv == pytest.approx(total.tv, rel=1e-12)
        assert parts[name].kl == pytest.approx(total.kl, rel=1e-12)
    assert sum(whole["k=7,tau=1"].tv_bins.values()) == 50


def test_percentile_is_the_upper_edge_of_its_bin():
    values = np.concatenate([np.full(99, 0.001), np.full(1, 0.5)]).astype(np.float32)
    bins = fidelity_measurement._bins(values)
    edges = fidelity.EDGES
    assert fidelity._percentile(bins, 0.99) == edges[np.searchsorted(edges, 0.001)]
    assert fidelity._percentile(bins, 1.0) == edges[np.searchsorted(edges, 0.5)]


def test_what_lies_beyond_the_edges_is_counted():
    bins = fidelity_measurement._bins(np.array([0, 1e-12, 1e5], np.float32))
    assert bins == {"0": 2, "129": 1}
    assert fidelity._percentile(bins, 1.0) == 100.0


@pytest.mark.parametrize(("k", "ks"), [(10, (10, 5, 2)), (1, (1,)), (2, (2, 1)), (100, (100, 50, 20))])
def test_the_prefixes_that_are_measured(k, ks):
    assert fidelity.measured_ks(k) == ks
