"""Of many images some are opened, and all are counted."""

from teachonce.prepare import prepare_shards
from teachonce.shards import decode, index, sample_reader
from teachonce.tools.init import image_survey, source_layout


def test_of_many_images_some_are_opened(project, monkeypatch):
    monkeypatch.setattr(image_survey, "_MOST_DECODED", 5)
    project.classes("a", "b", count=10)
    layout, survey = image_survey.survey_folder(source_layout.find_layout(project.images))
    assert (survey.decoded, survey.total("train"), survey.total("val")) == (5, 16, 4)
    assert layout.settings["on_bad_image"].value == "skip"
    assert "5 of 20 were opened" in layout.settings["on_bad_image"].reason


def test_large_images_are_to_be_stored_smaller(project, tmp_path):
    for name in ("a", "b"):
        for number in range(3):
            project.put(f"{name}/{number}.JPG", project.picture(size=(1800, 1200)))
    project.put("a/small.png", project.picture("PNG"))
    project.init("--yes")
    settings = project.dataset("images")
    assert settings.max_side == 512
    prepare_shards.prepare(settings, project.images, tmp_path / "shards")
    shards = index.read(tmp_path / "shards")
    sizes = [
        decode.rgb(sample.image, sample.key).size
        for shard in shards.index.shardlist
        for sample in sample_reader.verified_samples(shard, shards.path(shard))
    ]
    assert sorted(sizes) == [(48, 40), *[(512, 341)] * 6]


def test_a_class_of_one_image_is_learnt(project):
    project.classes("a", "b", count=10)
    for name in ("c", "d", "e", "f"):
        project.put(f"{name}/1.jpg")
    _, survey = image_survey.survey_folder(source_layout.find_layout(project.images))
    assert set(survey.counts["train"]) == set(range(6))
