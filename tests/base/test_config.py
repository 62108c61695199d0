import pydantic
import pytest

from pipeline.base import config, errors


class Inner(config.Model):
    rate: float = pydantic.Field(gt=0)
    name: str = "x"


class Outer(config.Model):
    inner: Inner
    count: int = 1
    pair: tuple[float, float] = (0.0, 1.0)


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
        ("inner: {rate: 1, name: 2020-01-01}", "holds a value that is not plain data"),
        ("inner: {rate: 1\ncount: [", "is not YAML: "),
        ("", "the file is refused: input should be an object. Got None"),
    ],
)
def test_refuses_a_value(load, text, message):
    assert message in refused(load, text)


def test_a_long_value_is_shown_in_part(load):
    assert len(refused(load, f"inner: {{rate: {'x' * 10_000}}}")) < 250


@pytest.mark.parametrize(
    "scalar", ["1e-3", "1E5", "1.5e3", "on", "off", "Yes", "no", "y", "N", "010", "0o17", "1_000", "1:30"]
)
def test_refuses_a_scalar_that_two_yamls_read_apart(load, scalar):
    assert refused(load, f"inner: {{rate: {scalar}}}") == (
        f"inner.rate must be a scalar that YAML 1.1 and 1.2 read alike. Got {scalar}. "
        "Write numbers as 0.001 or 1.0e-3, truth as true or false, text in quotes"
    )


def test_names_the_place_of_an_ambiguous_scalar(load):
    assert refused(load, "inner: {rate: 1}\npair: [1, 1e3]").startswith("pair.1 must be")
    assert refused(load, "on").startswith("the file must be")
    assert refused(load, "inner: {rate: 1, off: 2}").startswith("the key inner.off must be")


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
