import time
from typing import Annotated, Literal

import hypothesis
import hypothesis.strategies as st
import pydantic
import pytest
from dvc.utils import serialize

from teachonce.core import config, errors


class Inner(config.Model):
    rate: float = pydantic.Field(gt=0)
    name: str = "x"


class Round(config.Model):
    kind: Literal["round"]
    radius: float


class Square(config.Model):
    kind: Literal["square"]
    side: float


class Outer(config.Model):
    inner: Inner
    count: int = 1
    pair: tuple[float, float] = (0.0, 1.0)
    kind: Literal["fast", "slow"] = "fast"
    k: Literal["all"] | int | Inner = "all"
    form: Annotated[Round | Square | None, pydantic.Field(discriminator="kind")] = None


@pytest.fixture
def load(tmp_path):
    def loaded(text: str) -> Outer:
        path = tmp_path / "some.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return config.load(path, Outer)

    return loaded


def refused(load, text) -> str:
    with pytest.raises(errors.ConfigError) as caught:
        load(text)
    message = str(caught.value)
    assert "some.yaml: " in message
    assert "\n" not in message
    return message.partition("some.yaml: ")[2]


def test_reads_a_file(load):
    assert load("inner: {rate: 1}\npair: [1, 2.5]\n") == Outer(inner=Inner(rate=1.0), pair=(1.0, 2.5))


def test_is_frozen(load):
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        load("inner: {rate: 1}").count = 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("inner: {rate: 1, ratee: 2}", "inner.ratee is not a known key. Remove it or correct its spelling"),
        ("count: 1", "inner is missing. Add it"),
        ("inner: {rate: '3'}", "inner.rate is refused: input should be a valid number. Got '3'"),
        ("inner: {rate: 1}\ncount: '3'", "count is refused: input should be a valid integer. Got '3'"),
        ("inner: {rate: 1}\ncount: 3.5", "Got 3.5"),
        ("inner: {rate: 1}\ncount: true", "Got True"),
        ("inner: {rate: 0}", "inner.rate is refused: input should be greater than 0. Got 0"),
        ("inner: {rate: 0}\ncount: x", "inner.rate is refused: input should be greater than 0. Got 0 (1 more)"),
        ("inner: {rate: 1}\npair: [.nan, 1]", "pair.0 is refused: input should be a finite number. Got nan"),
        ("inner: {rate: .inf}", "inner.rate is refused: input should be a finite number. Got inf"),
        ("inner: {rate: 1, name: 2020-01-01}", "inner.name must be a scalar that Python and DVC read alike"),
        ("inner: {rate: 1, nam: x}", "inner.nam is not a known key. Did you mean name?"),
        ("inner: {r: 1}", "inner.r is not a known key. Did you mean rate?"),
        ("inner: {raet: 1, rat: 2}", "inner.raet is not a known key. Did you mean rate? (1 more)"),
        ("inner: {rate: [1, {a: 2}]}", "Got [1, {'a': 2}]"),
        ("inner: [1]", "inner is refused: input should be an object. Got [1]"),
        ("inner: {rate: 1}\nform: {}", "form.kind is missing. Add it"),
        ("inner: {rate: {a: 1}}", "inner.rate is refused: input should be a valid number. Got the keys a"),
        (
            "inner: {rate: 1}\nkind: slwo",
            "kind is refused: input should be 'fast' or 'slow'. Got 'slwo'. Did you mean slow",
        ),
        (
            "inner: {rate: 1}\nform: {kind: roun}",
            "form.kind is refused: input should be 'round' or 'square'. Got 'roun'. Did",
        ),
        ("inner: {rate: 1}\nform: {knd: round}", "form.knd is not a known key. Did you mean kind?"),
        ("inner: {rate: 1}\nform: {kind: round, radus: 1}", "form.radus is not a known key. Did you mean radius?"),
        ("inner: {rate: 1}\nform: {kind: round}", "form.radius is missing. Add it"),
        (
            "inner: {rate: 1}\nk: many",
            "k is refused: input should be 'all' or a valid integer or an object. Got 'many'",
        ),
        ("inner: {rate: 1}\nk: {rat: 1}", "k.rat is not a known key. Did you mean rate?"),
        ("inner: {rate: 1}\nk: {rate: 0}", "k.rate is refused: input should be greater than 0. Got 0"),
        ("inner: {rate: 1\ncount: [", "is not YAML: "),
        ("", "the file is refused: input should be an object. Got None"),
    ],
)
def test_refuses_a_value(load, text, message):
    assert message in refused(load, text)


def test_a_long_value_is_shown_in_part(load):
    assert len(refused(load, f"inner: {{rate: {'x' * 10_000}}}")) < 250


APART = ["1_000", "1_0.5", "1_", "0x_f", "0b11", "-0x1f", "+0o7", ".5e3", "-.5E7", "2020-01-01", "=", "<<", "0b_"]
APART += ["2020-01-01 10:00:00", "2020-01-01T10:00:00Z"]
ALIKE = ["1e-3", "5e-05", "1E5", "1.5e3", "1e+5", "5.e3", "0.0e0", "1e400", "on", "off", "Yes", "no", "y", "N", "010"]
ALIKE += ["0777", "09", "00", "0o17", "0o8", "0x1F", "0x", "0xg", "1:30", "190:20:30", ".5", "5.", "-.5", "+.5", "+5"]
ALIKE += [
    "-0",
    ".inf",
    "-.Inf",
    ".nan",
    "nan",
    "inf",
    "null",
    "Null",
    "~",
    "nULL",
    "true",
    "True",
    "TRUE",
    "tRue",
    "1e",
]
ALIKE += ["+", ".", "..", "e3", "00.5", "1,000", "1e5.", "１", "'1e3'", '"on"', "_1", "1e1_0", "0B1", ""]


def same(value: object, other: object) -> bool:
    """Equal, of one type, with NaN equal to itself."""
    return repr(value) == repr(other)


@pytest.mark.parametrize("scalar", APART)
def test_refuses_a_scalar_that_python_and_dvc_read_apart(load, scalar):
    assert refused(load, f"inner: {{rate: {scalar}}}") == (
        f"inner.rate must be a scalar that Python and DVC read alike. Got {scalar}. "
        "Write numbers as 0.001, 1e-3 or 1000, anything else in quotes"
    )


@pytest.mark.parametrize("scalar", ALIKE)
def test_reads_a_scalar_as_dvc_does(tmp_path, scalar):
    path = tmp_path / "some.yaml"
    path.write_text(f"a: {scalar}\n", encoding="utf-8")
    assert same(config.read(path), serialize.load_yaml(path))


@hypothesis.given(scalar=st.text("0123456789+-._eExXoObnNftTyY:~ aA", max_size=9))
@hypothesis.settings(max_examples=400, deadline=None)
def test_whatever_scalar_is_read_is_read_as_dvc_does(tmp_path_factory, scalar):
    path = tmp_path_factory.getbasetemp() / "scalar.yaml"
    path.write_text(f"a: {scalar}\nb: [{scalar}, x]\n")
    try:
        data = config.read(path)
    except errors.ConfigError:
        return
    assert same(data, serialize.load_yaml(path))


@hypothesis.given(number=st.floats(allow_nan=False, allow_infinity=False) | st.integers())
@hypothesis.settings(max_examples=200, deadline=None)
def test_every_number_that_dvc_writes_is_read(tmp_path_factory, number):
    path = tmp_path_factory.getbasetemp() / "number.yaml"
    serialize.dump_yaml(path, {"lr": 1.5})
    with serialize.modify_yaml(path) as data:
        data["lr"] = number
    assert same(config.read(path), {"lr": number})


def test_what_dvc_writes_of_a_small_rate_is_read(load):
    assert load("inner: {rate: 5e-05}").inner.rate == 0.00005


def test_names_the_place_of_an_ambiguous_scalar(load):
    assert refused(load, "inner: {rate: 1}\npair: [1, 1_3]").startswith("pair.1 must be")
    assert refused(load, "1_0").startswith("the file must be")
    assert refused(load, "inner: {rate: 1, 1_0: 2}").startswith("the key inner.1_0 must be")


def test_all_problems_of_a_file_are_listed(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("inner: {rate: 1_0, rate: 2}\n1: 3\ncount: &a 3\npair: *a\n")
    with pytest.raises(errors.ConfigError) as caught:
        config.load(path, Outer)
    assert str(caught.value).endswith(" (4 more)")
    heads = [problem.what.partition(".")[0] for problem in (caught.value, *caught.value.others)]
    assert heads[:2] == ["inner", "inner"]
    assert heads[2:] == [
        "the key 1 must be text",
        "count must be without anchors and aliases",
        "pair must be without anchors and aliases",
    ]


@pytest.mark.parametrize(("scalar", "value"), [("1.0e-3", 0.001), ("0.001", 0.001), ("7", 7.0), ("-0", None)])
def test_accepts_plain_numbers(load, scalar, value):
    if value is None:
        assert "greater than 0" in refused(load, f"inner: {{rate: {scalar}}}")
    else:
        assert load(f"inner: {{rate: {scalar}}}").inner.rate == value


def test_accepts_quoted_words(load):
    assert load("inner: {rate: 1, name: 'on'}").inner.name == "on"


def test_refuses_a_key_given_twice(load):
    assert refused(load, "inner: {rate: 1, rate: 2}") == "inner.rate is given twice. Remove one of them"


def test_refuses_a_file_that_is_not_text(tmp_path):
    (tmp_path / "some.yaml").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(errors.ConfigError, match=r"some\.yaml: is not YAML"):
        config.load(tmp_path / "some.yaml", Outer)


def test_a_missing_file_says_how_to_list_the_choices(tmp_path):
    with pytest.raises(errors.ConfigError) as caught:
        config.load(tmp_path / "some.yaml", Outer)
    assert str(caught.value).endswith(
        f"some.yaml: cannot be read (No such file or directory). List the choices: ls {tmp_path}"
    )


class Listed(config.Model):
    numbers: tuple[int, ...] = ()
    inner: tuple[Inner, ...] = ()


def many_problems(count: int) -> list[dict[str, object]]:
    """Data with so many refused values, of each kind."""
    return [
        {"numbers": ["x"] * count},
        {"inner": [{}] * count},
        {"inner": [{"rates": 1}] * count},
        {f"nmbers{place}": 1 for place in range(count)},
    ]


@pytest.mark.parametrize("case", range(4))
def test_the_time_of_a_refusal_grows_as_the_data_do(case):
    """Of four times as much it takes four times as long; where all is compared with all, sixteen times."""

    def seconds(count: int) -> float:
        data = many_problems(count)[case]
        began = time.process_time()
        with pytest.raises(errors.ConfigError):
            config.parse(data, Listed, "some.json")
        return time.process_time() - began

    assert min(seconds(8000) for _ in range(3)) < 9 * min(seconds(2000) for _ in range(3)) + 0.01


@pytest.mark.parametrize("case", range(4))
def test_a_hundred_problems_are_listed_and_all_are_counted(case):
    data = many_problems(150)[case]
    with pytest.raises(errors.ConfigError) as caught:
        config.parse(data, Listed, "some.json")
    lines = [problem.line() for problem in (caught.value, *caught.value.others)]
    counted = int(lines[100].removeprefix("some.json: ").partition(" ")[0]) + 100
    assert lines[100].endswith(" more problems are not listed. Correct these first")
    assert len(lines) == 101
    assert str(caught.value).endswith(f" ({counted - 1} more)")
    assert counted >= 150
