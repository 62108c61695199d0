"""The images of a teacher's own training: which are held back, and how batches are cut."""

from collections import Counter

import pytest

from teachonce.shards import index, sample_reader
from teachonce.teacher import training_images
from teachonce.views import view_policy


def labels_of(shards, keys=None) -> list[int]:
    entries = shards.index.of_split("train")
    samples = [sample for entry in entries for sample in sample_reader.verified_samples(entry, shards.path(entry))]
    return sorted(sample.label for sample in samples if keys is None or sample.key in keys)


@pytest.mark.parametrize(
    ("images", "sizes"), [(2, [2]), (16, [16]), (17, [17]), (18, [16, 2]), (32, [16, 16]), (33, [16, 17])]
)
def test_no_batch_is_of_one_image(settings, make_shards, tmp_path, images, sizes):
    shards = make_shards(tmp_path / "shards", counts=(images - 1, 1), val=1)
    training = training_images.TrainingImages(shards, settings().weights, 32, frozenset())
    batches = list(training.epoch(0))
    assert [len(labels) for _, labels in batches] == [len(pixels) for pixels, _ in batches] == sizes
    assert training.steps() == len(sizes)
    assert sorted(label for _, labels in batches for label in labels.tolist()) == labels_of(shards)


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [1]), (1, [1, 1, 1]), (16, [16, 1]), (16, [16, 16])])
def test_frozen_norms_take_an_image_alone(finetuned, make_shards, tmp_path, batch_size, sizes):
    shards = make_shards(tmp_path / "shards", counts=(sum(sizes),), val=1)
    recipe = finetuned(batch_size=batch_size).weights
    training = training_images.TrainingImages(shards, recipe, 32, frozenset())
    assert [len(labels) for _, labels in training.epoch(0)] == sizes
    assert training.steps() == len(sizes)


def test_a_tenth_is_held_back_and_nothing_is_trained_on_it(finetuned, make_shards, tmp_path):
    shards = make_shards(tmp_path / "shards", counts=(30, 30), val=9, labelled=lambda row: row % 3 > 0)
    held_back = training_images.held_back_keys(shards)
    assert len(held_back) == 4
    # Whichever tars the images lie in.
    again = make_shards(tmp_path / "again", counts=(20, 20, 20), val=30, labelled=lambda row: row % 3 > 0)
    assert training_images.held_back_keys(again) == held_back
    training = training_images.TrainingImages(shards, finetuned().weights, 32, held_back)
    trained = sorted(label for _, labels in training.epoch(0) for label in labels.tolist())
    scored = training_images.plain_batches(shards, held_back, view_policy.Policy(), 32, 3)
    batches = [labels.tolist() for _, labels in scored]
    assert [len(batch) for batch in batches] == [3, 1]
    shown = sorted(label for batch in batches for label in batch)
    assert shown == labels_of(shards, held_back)
    assert Counter(trained) + Counter(shown) == Counter(
        label for label in labels_of(shards) if label != index.UNLABELLED
    )


def test_no_class_loses_its_last_image(make_shards, tmp_path):
    # The first twelve digits are 0 to 9, 0 and 1: ten images that are their class's last, and two that may be spared.
    shards = make_shards(tmp_path / "few", counts=(12,), val=1)
    (key,) = training_images.held_back_keys(shards)
    assert labels_of(shards, {key})[0] in {0, 1}
    assert training_images.held_back_keys(make_shards(tmp_path / "ten", counts=(10,), val=1)) == frozenset()
    assert training_images.held_back_keys(make_shards(tmp_path / "one", counts=(1,), val=1)) == frozenset()
