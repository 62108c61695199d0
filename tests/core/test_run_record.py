import json

from teachonce.core import run_record


def test_versions_name_what_can_change_a_byte():
    versions = run_record.library_versions()
    assert {"python", "machine", "pillow", "numpy", "torch", "zarr"} <= set(versions)
    assert all(isinstance(value, str) and value for value in versions.values())


def test_cost_holds_time_and_facts(tmp_path):
    run_record.write_cost(tmp_path / "deep" / "cost.json", run_record.Timer(), units=3)
    cost = json.loads((tmp_path / "deep" / "cost.json").read_text())
    assert cost["units"] == 3
    assert 0 <= cost["wall_s"] < 60
    assert cost["cpus"] >= 1
