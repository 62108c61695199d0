from teachonce.tools.compare import differing_knobs, locked_stages

TAU, SEED, MODEL, CODE = (
    locked_stages.Knob("", "tau"),
    differing_knobs.SEED,
    locked_stages.Knob("", "model"),
    locked_stages.CODE,
)
LR, OTHER_LR = (locked_stages.Knob(f"configs/student/{name}.yaml", "lr") for name in ("small", "large"))
ROWS, K = locked_stages.Knob(locked_stages.INPUT, "train.zarr"), locked_stages.Knob("configs/cache/top.yaml", "k")


def test_what_is_the_same_and_the_seed_are_left_out():
    students = [{TAU: 3, SEED: 0, LR: 0.1}, {TAU: 3, SEED: 1, LR: 0.2}]
    assert differing_knobs.find_differing(students) == [LR]
    assert differing_knobs.find_differing([{TAU: 3}, {}]) == [TAU], "a plain student has none"


def test_another_file_is_told_by_its_name_alone():
    students = [{MODEL: "small", LR: 0.1}, {MODEL: "large", OTHER_LR: 0.2}]
    assert differing_knobs.find_differing(students) == [MODEL]
    students.append({MODEL: "large", OTHER_LR: 0.3})
    assert differing_knobs.find_differing(students) == [MODEL, OTHER_LR]


def test_inputs_that_follow_from_a_knob_are_told_by_it():
    students = [{K: 5, ROWS: "a"}, {K: 10, ROWS: "b"}]
    assert differing_knobs.find_differing(students) == [K]
    assert differing_knobs.find_differing([*students, {K: 10, ROWS: "c"}]) == [K, ROWS]


def test_other_code_is_always_told():
    assert differing_knobs.find_differing([{TAU: 3, CODE: "a"}, {TAU: 5, CODE: "b"}]) == [TAU, CODE]


def test_two_keys_of_one_name_are_named_with_their_files():
    assert list(differing_knobs.name_columns([TAU, LR, OTHER_LR]).values()) == [
        "tau",
        "configs/student/small.yaml:lr",
        "configs/student/large.yaml:lr",
    ]
