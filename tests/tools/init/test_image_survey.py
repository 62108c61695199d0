"""Of many images some are opened, and all are counted."""

from teachonce.tools.init import image_survey, source_layout


def test_of_many_images_some_are_opened(project, monkeypatch):
    monkeypatch.setattr(image_survey, "_MOST_DECODED", 5)
    project.classes("a", "b", count=10)
    layout, survey = image_survey.survey_folder(source_layout.find_layout(project.images))
    assert (survey.decoded, survey.total("train"), survey.total("val")) == (5, 16, 4)
    assert layout.settings["on_bad_image"].value == "skip"
    assert "5 of 20 were opened" in layout.settings["on_bad_image"].reason


def test_a_class_of_one_image_is_learnt(project):
    project.classes("a", "b", count=10)
    for name in ("c", "d", "e", "f"):
        project.put(f"{name}/1.jpg")
    _, survey = image_survey.survey_folder(source_layout.find_layout(project.images))
    assert set(survey.counts["train"]) == set(range(6))
