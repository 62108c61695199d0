"""Good configurations, changed at random: refused in lines, or read as DVC reads them.

python -m pytest tests/check/test_fuzz.py -s      # prints the count of each outcome
"""

import collections
import os
import random  # noqa: TID251 - a seeded stream of test cases, no view and no order of training
from pathlib import Path

import changes
import pytest
from dvc.utils import serialize

from teachonce.core import config, errors, yaml_reader

PIECES = [
    *(
        b":",
        b"[",
        b"]",
        b"{",
        b"}",
        b"&a ",
        b"*a",
        b"'",
        b'"',
        b"\t",
        b"\n",
        b"  ",
        b"- ",
        b"? ",
        b"#",
        b"%",
        b"@",
        b"`",
    ),
    *(
        b"|",
        b">",
        b"\0",
        b"\xef\xbb\xbf",
        b"---\n",
        b"...\n",
        b",",
        b"<<: ",
        b"\x85",
        b"\xe2\x80\xa8",
        b"\r",
        b"~",
        b"=",
    ),
    *(
        b" #",
        b"\\",
        b"\xff",
        b"\xe9",
        b'"\\U0011FFFF"',
        b'"\\xZZ"',
        b'"\\ud800"',
        b'"\\0"',
        b"!<x> ",
        b"!!binary =",
        b"!",
    ),
    *(b"%YAML 1.1\n---\n", b"|9\n", b">2\n", b"0x", b"0b_", b"2001-99-99", b"1" * 5000, b"[" * 3000, b"- " * 3000),
    *(b"`", b"=", b"!"),
    *(b"? " * 3000, b"{a: " * 500, b"a: b\n" * 20_000, b"&a [*a, *a]", b"!!set {a}", b"!!int x", b"!!python/none x"),
    *(b"1: 2\n", b"null: 1\n", b"? [a]\n", b"{}: 1\n", b"1e999", b"-0", b"1_0", b"x" * 600_000, b"\n  seed: 1\n"),
]


def changed(data: bytes, draw: random.Random) -> bytes:
    """One to four small changes; most files without their long headers."""
    if draw.random() < 0.7:
        data = b"".join(line for line in data.splitlines(keepends=True) if not line.startswith(b"#"))
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        kind = draw.random()
        if kind < 0.55:
            data = data[:at] + draw.choice(PIECES) + data[at:]
        elif kind < 0.7:
            data = data[:at] + data[at + draw.randrange(1, 6) :]
        elif kind < 0.8 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        elif kind < 0.85:
            data = data[:at]
        else:
            other = draw.randrange(len(data) + 1)
            data = data[:at] + data[other : other + draw.randrange(30)] + data[at:]
    return data


def outcome(settings, path: Path) -> str:
    """What a check makes of a changed file; where its data are read, they are DVC's."""
    findings = settings.check()
    lines = [problem.line() for problem in findings.problems + findings.warnings]
    assert not any("\n" in line for line in lines), lines
    assert all(len(line) < 700 for line in lines), lines
    try:
        data = config.read(path)
    except errors.ConfigError:
        assert findings.problems, "refused by the reader alone"
        return "refused"
    assert repr(data if data is not None else {}) == repr(serialize.load_yaml(path)), "read, and not as DVC reads it"
    return "refused" if findings.problems else "in order"


@pytest.mark.timeout(900)  # what hangs ends here
def test_a_changed_configuration_is_refused_in_lines_or_read_as_dvc_reads_it(settings):
    files = ["params.yaml", *(f"configs/{name}.yaml" for name in CHOSEN)]
    outcomes: collections.Counter[str] = collections.Counter()
    escaped = []
    for number in range(changes.COUNT):
        draw = random.Random(f"configuration-{number}")  # noqa: S311
        path = settings.folder / draw.choice(files)
        good = path.read_bytes()
        path.write_bytes(changed(good, draw))
        try:
            result = outcome(settings, path)
        except Exception as error:  # collected: a run shows all holes at once
            result = "escaped"
            escaped.append(f"{number}: {path.name}: {type(error).__name__}: {str(error)[:300]}")
        outcomes[result] += 1
        path.write_bytes(good)
    print(f"\n{outcomes.total()} changes: {dict(outcomes.most_common())}")
    assert not escaped, "\n".join(escaped)
    assert outcomes["refused"] > changes.COUNT / 3


CHOSEN = ("dataset/digits", "views/digits", "teacher/resnet_small", "cache/whole", "student/deit_micro")


def test_what_is_no_small_regular_file_is_refused_at_once(settings, tmp_path):
    path = settings.folder / "configs/views/digits.yaml"
    path.unlink()
    for make, text in (
        (path.mkdir, "cannot be read (is no regular file)"),
        (lambda: os.mkfifo(path), "cannot be read (is no regular file)"),
        (lambda: path.symlink_to("/dev/zero"), "cannot be read (is no regular file)"),
        (lambda: path.symlink_to(path.name), "cannot be read (Too many levels of symbolic links)"),
        (
            lambda: path.write_bytes(b"a" * (10 << 20)),
            f"has {10 << 20:,} bytes, may have {yaml_reader.MAX_YAML_BYTES:,}",
        ),
        (lambda: path.write_bytes(b"a: caf\xe9\n"), "is not YAML: byte 6 is not UTF-8. Save it as UTF-8"),
        (lambda: path.write_bytes(b"a: \0\n"), "is not YAML: "),
        (lambda: path.write_bytes(b"a: &x [1, 2]\nb: *x\n"), "a must be without anchors and aliases. Got &x"),
        (lambda: path.write_bytes(b"a: !!python/object:os.system x\n"), "a must be without a tag. Got tag:yaml.org"),
        (lambda: path.write_bytes(b"--- 1\n--- 2\n"), "holds more than one document"),
        (lambda: path.write_bytes(b"%YAML 1.1\n---\na: on\n"), "begins with a directive (%). Remove that line"),
        (lambda: path.write_bytes(b"a: 1\n'a': 2\n"), "a is given twice. Remove one of them"),
        (lambda: path.write_bytes(b"? [a]\n: 1\n"), "the key ? must be text. Got ['a']"),
        (lambda: path.write_bytes(b"[" * 100_000), "must be nested in at most 32 maps and lists"),
        (lambda: path.write_bytes(b"[" + b"1," * 100_000 + b"]"), "must be among the first 32,768 values of a file"),
        (lambda: path.write_bytes(b'a: "\\0"\n'), "a must be text without control characters. Got '\\x00'"),
    ):
        make()
        (line, *_) = settings.problems()
        assert line.startswith(f"configs/views/digits.yaml: {text}") or text in line, line
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.timeout(60)
def test_nested_aliases_are_refused_before_they_unfold(settings):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (settings.folder / "configs/views/digits.yaml").write_text("\n".join(lines))
    assert "a0 must be without anchors and aliases. Got &a0" in settings.problems()[0]


def test_a_byte_order_mark_is_passed_over_as_dvc_does(settings):
    path = settings.folder / "configs/views/digits.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert settings.problems() == []
    assert config.read(path) == serialize.load_yaml(path)
