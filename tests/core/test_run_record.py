import json

from teachonce.core import run_record


def test_versions_name_what_can_change_a_byte():
    found = run_record.library_versions()
    assert {"python", "machine", "pillow", "numpy", "torch", "zarr"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())


def test_cost_holds_time_and_facts(tmp_path):
    run_record.write_cost(tmp_path / "deep" / "cost.json", run_record.Timer(), units=3)
    found = json.loads((tmp_path / "deep" / "cost.json").read_text())
    assert found["units"] == 3
    assert 0 <= found["wall_s"] < 60
    assert found["cpus"] >= 1
