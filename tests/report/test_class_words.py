"""Names of classes as they are shown."""

from teachonce.report import class_words


def test_imagenets_ids_are_words():
    names = class_words.name_classes(["n01440764", "n02012849", "n03126707", "n99999999"])
    assert names[0] == "tench"
    # Two classes are cranes: each keeps the words that tell it from the other.
    assert names[1] != names[2]
    assert [name[:5] for name in names[1:3]] == ["crane", "crane"]
    assert names[3] == "n99999999"


def test_other_names_stay_and_an_empty_one_gets_its_number():
    assert class_words.name_classes(["n01440764", "cat", ""]) == ("n01440764", "cat", "class 2")
