import os
from pathlib import PurePath

import hypothesis
import pytest
from hypothesis import strategies

from teachonce.shards import sample_keys

KEYS = dict.fromkeys(("cat/%C3%BC%20x", "cat/a%2Eb", "cat/plain", "dog/plain", "%5Fme", "100%25", "sample.7"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cat/ü x", "cat/%C3%BC%20x"),
        ("cat/%C3%BC%20x", "cat/%C3%BC%20x"),
        ("cat/a.b", "cat/a%2Eb"),
        ("cat/plain", "cat/plain"),
        ("_me", "%5Fme"),
        ("100%", "100%25"),
        ("sample.7", "sample.7"),  # an adopted tar's, which nobody escaped
        ("cat/plainn", None),
        (os.fsdecode(b"caf\xe9"), None),
    ],
)
def test_a_key_is_known_by_its_plain_name(name, key):
    assert sample_keys.resolve_key(name, KEYS) == key


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("cat/plainn", "cat/plain"),
        ("cat/plain.png", "cat/plain"),
        ("cat/ü  x", "cat/ü x"),
        ("cat/%C3%BC%20", "cat/ü x"),
        ("dog/plaid", "dog/plain"),
        ("cow/plain", None),
        ("zzz", None),
    ],
)
def test_the_nearest_key(name, plain):
    assert sample_keys.closest_key(name, KEYS) == plain


@hypothesis.given(name=strategies.text(strategies.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_plain_is_what_was_escaped(name):
    assert sample_keys.unescape(sample_keys.escape(name)) == name


@pytest.mark.parametrize("key", ["a.b", "%zz", "%e9", "%FF", "a b", "a%0Ab"])
def test_a_key_that_prepare_did_not_write_stays(key):
    assert sample_keys.unescape(key) == key


@pytest.mark.parametrize(
    ("name", "fault", "shown"),
    [
        ("ü x.png", None, "ü x.png"),
        ("　", None, "　"),
        (os.fsdecode(b"caf\xe9"), "is not UTF-8", r"caf\xe9"),
        ("a\nb", "holds a control character", r"a\x0ab"),
        ("a\0", "holds a control character", r"a\x00"),
        ("\x1b[31m", "holds a control character", r"\x1b[31m"),
        ("a\u2028b", "holds a control character", r"a\x2028b"),
    ],
)
def test_names_that_are_no_text(name, fault, shown):
    assert (sample_keys.name_fault(name), sample_keys.printable_name(name)) == (fault, shown)


def test_keys_never_meet_by_escaping():
    names = ["a.b.png", "a%2Eb.png", "a_b.png", "a b.png", "_a.png", "%5Fa.png"]
    assert len({sample_keys.from_path(PurePath(name)) for name in names}) == len(names)
