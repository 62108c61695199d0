import numpy as np
import pytest
import zarr

from teachonce.format import layout, zarr_arrays


def test_arrays_of_a_store(recipe):
    top = layout.array_specs(recipe(3), 8)
    assert {name: (spec.dtype, spec.inner, spec.per) for name, spec in top.items()} == {
        "key": ("str", (8,), "tar"),
        "canary": ("uint8", (3, 16, 16), "tar"),
        "class_id": ("uint16", (8, 3), "unit"),
        "logp": ("float16", (8, 3), "unit"),
        "lse": ("float32", (8,), "unit"),
    }
    assert layout.array_specs(recipe("all"), 8)["logits"].inner == (8, 12)


@pytest.mark.parametrize(("classes", "dtype", "fill"), [(65_535, "uint16", 65_535), (65_536, "uint32", 2**32 - 1)])
def test_ids_of_many_classes_are_wide(recipe, classes, dtype, fill):
    spec = layout.array_specs(recipe(3, tuple(map(str, range(classes)))), 8)["class_id"]
    assert (spec.dtype, spec.fill) == (dtype, fill)


def test_arrays_by_tar_are_written_with_the_first_group(recipe):
    specs = layout.array_specs(recipe(3), 8)
    assert set(layout.unit_specs(specs, 0)) == set(specs)
    assert set(layout.unit_specs(specs, 1)) == {"class_id", "logp", "lse"}


def test_object_paths_are_where_zarr_looks(recipe, tmp_path):
    specs = layout.array_specs(recipe(3), 8)
    group = zarr.create_group(str(tmp_path))
    for name, spec in specs.items():
        zarr_arrays.create_array(group, name, spec, tars=3, aug_seeds=4, seeds_per_unit=2)
        value = "x" if spec.dtype == "str" else np.ones((), spec.dtype)
        place = (2, slice(2, 4)) if spec.per == "unit" else (2,)
        group[name][place] = value
        files = [str(path.relative_to(tmp_path)) for path in (tmp_path / name / "c").rglob("*") if path.is_file()]
        assert files == [layout.object_path(name, spec, 2, 1)]
