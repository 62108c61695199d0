"""Values as YAML reads them back, in the lines of a file that is there."""

import pytest

from teachonce.core import config
from teachonce.tools.init import config_text, source_layout

TEXT = "# Old header\n# of two lines\na: 1 # old\nmap:\n  b: 2\n  list: [1, 2]\nlast: {x: 1}\n"


@pytest.mark.parametrize(
    "data",
    [
        None,
        True,
        3,
        0.2,
        "plain",
        "/a/path.d/x-1",
        "",
        "no",
        "Null",
        "3",
        "1e3",
        ".5",
        "with space",
        "a: b # c",
        'quote " and \\ slash',
        "Küste",
        "[x]",
        ["a", "1", "ü, ö"],
        [],
    ],
)
def test_a_value_is_read_back(data, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(f"key: {config_text.to_yaml(data)} # why\n", encoding="utf-8")
    assert config.read(path) == {"key": data}


def test_settings_are_set_in_their_lines(tmp_path):
    settings = {
        key: source_layout.Setting(value, "why")
        for key, value in {"a": 5, "map.b": 6, "map.new": "x", "other": 7}.items()
    }
    text = config_text.with_settings(TEXT, "# New", settings)
    assert text.splitlines()[:2] == ["# New", "a: 5 # why"]
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert config.read(path) == {"a": 5, "map": {"b": 6, "list": [1, 2], "new": "x"}, "last": {"x": 1}, "other": 7}
