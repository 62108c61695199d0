"""A network's speed is told with all that it was measured with; nothing of the network changes."""

import torch

from teachonce.core import forward_speed, run_record


def test_the_measurement_names_its_conditions_and_changes_nothing():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    speed = forward_speed.measure_forward(network, 8)
    assert (speed.batch, speed.threads) == (32, torch.get_num_threads())
    assert speed.device
    assert speed.images_a_second > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert speed.is_comparable(speed.model_copy(update={"images_a_second": 1.0}))
    assert not speed.is_comparable(speed.model_copy(update={"device": "another"}))


def test_a_stopped_timer_counts_no_more():
    timer = run_record.Timer()
    timer.stop()
    assert timer.wall_s() == timer.wall_s()
