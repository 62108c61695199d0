"""Weights and speed beside accuracy: only speeds that were measured in one way are compared."""

import dataclasses
import json

from teachonce.core import run_record
from teachonce.report import load_metrics, tradeoff, write_report

SPEED = run_record.ForwardSpeed(images_a_second=100.0, batch=32, device="cpu", threads=2)


def test_speeds_measured_otherwise_are_left_out(whole):
    numbers, _ = write_report.build_page(whole.paths())
    metrics = whole.gather(numbers.order)
    fast, other = (SPEED.model_copy(update=each) for each in ({"images_a_second": 250.0}, {"threads": 8}))
    speeds = {"teacher": SPEED, "evaluate plain": fast, "evaluate zeal": other}
    costs = tuple(dataclasses.replace(cost, forward=speeds.get(cost.stage)) for cost in metrics.costs)
    weighed = tradeoff.weigh_networks(numbers, dataclasses.replace(metrics, costs=costs))
    assert weighed.speed == SPEED
    rates = {network.name: (network.images_a_second, network.speedup) for network in weighed.networks}
    assert rates == {"plain": (250.0, 2.5), "zeal": (None, None), "hard-1": (None, None), "teacher": (100.0, None)}
    assert [network.weights for network in weighed.networks][-1] == 1234
    assert tradeoff.weigh_networks(numbers, metrics).speed is None


def test_costs_with_speeds_are_shown(copied):
    for stage in ("teacher", "evaluate/plain", "evaluate/zeal", "evaluate/hard-1"):
        path = copied.root / "costs" / f"{stage}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "forward": SPEED.model_dump()}))
    (cost,) = load_metrics.read_costs(copied.root / "costs", ["zeal"])[1:2]
    assert (cost.forward, cost.facts) == (SPEED, {})
    write_report.build_page(copied.paths())
    text = (copied.root / "report" / write_report.PAGE).read_text(encoding="utf-8")
    assert 'aria-label="images a second"' in text
    assert "the quickest of several forward passes of 32 images in float32, on cpu with 2 threads" in text
