"""Work over a mesh of devices: the same numbers as on one."""

import jax
import numpy as np
import pytest
from families import assert_close
from jax.sharding import NamedSharding, PartitionSpec
from test_study import SMALL

from jaxheads.engine import sweeps
from jaxheads.engine.chunks import chunks, part_of_fill
from jaxheads.engine.devices import (
    data_parts,
    gather,
    make_mesh,
    mesh_of,
    replicate,
    shardings,
    split,
)
from jaxheads.errors import UserError
from jaxheads.models import family
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ("4x2", (4, 2)),
        ("data=2,model=4", (2, 4)),
        ("model=2", (1, 2)),
        ("data=8", (8, 1)),
        ("3", (3, 1)),
    ],
)
def test_a_mesh_is_made_as_it_is_written(spec, shape):
    mesh = make_mesh(spec)
    assert mesh is not None and mesh.axis_names == ("data", "model")
    assert mesh.devices.shape == shape and data_parts(mesh) == shape[0]
    assert mesh.devices.reshape(-1).tolist() == jax.devices()[: np.prod(shape)]


@pytest.mark.parametrize(
    "spec", ["", "0", "4x", "x2", "data=4;model=2", "data=2,data=4", "rows=2", "2x2x2"]
)
def test_a_mesh_that_cannot_be_read_is_refused(spec):
    with pytest.raises(UserError, match=r"data=4,model=2 or 4x2, not"):
        make_mesh(spec)


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(UserError, match="takes 16 devices, but there are 8"):
        make_mesh("8x2")


def test_one_process_of_processors_has_no_mesh_unless_asked(tiny_gqa):
    assert make_mesh() is None and mesh_of(tiny_gqa.params) is None
    array = np.arange(3)
    assert split(array, None) is array and replicate(array, None) is array


@pytest.mark.parametrize("wanted", [np.arange(8.0), np.zeros((3, 4, 2))])
def test_arrays_come_back_as_they_were_split(wanted):
    mesh = make_mesh("4x2")
    axis = wanted.shape.index(4) if 4 in wanted.shape else 0
    placed = split(wanted, mesh, axis)
    parts = {shard.data.shape[axis] for shard in placed.addressable_shards}
    assert parts == {wanted.shape[axis] // 4}
    np.testing.assert_array_equal(gather(placed), wanted)
    assert replicate(wanted, mesh).is_fully_replicated


def test_shapes_are_placed_like_the_arrays_that_they_stand_for():
    mesh = make_mesh("4x2")
    shape = split(jax.ShapeDtypeStruct((8, 3), np.float32), mesh)
    assert shape.sharding == NamedSharding(mesh, PartitionSpec("data"))  # type: ignore[arg-type]
    assert shape.sharding == split(np.zeros((8, 3)), mesh).sharding


@pytest.mark.parametrize("count", [1, 3, 8, 21])
@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_chunks_are_multiples_of_the_devices(count, size):
    parts = list(chunks(count, size, 4))
    assert len({len(part) for part in parts}) == 1 and len(parts[0]) % 4 == 0
    assert len(parts[0]) <= max(size, 4)
    np.testing.assert_array_equal(np.concatenate(parts)[:count], np.arange(count))


def test_fills_of_single_prompts_go_with_them():
    shared, each = np.zeros((2, 3, 4)), np.arange(10.0).reshape(1, 5, 1, 1, 2)
    assert part_of_fill(None, slice(2)) is None
    assert part_of_fill(shared, slice(2)) is shared
    rows = np.array([3, 4, 4])
    np.testing.assert_array_equal(part_of_fill(each, rows), each[:, rows])
    shape = jax.ShapeDtypeStruct(each.shape, each.dtype)
    assert part_of_fill(shape, slice(2)).shape == (1, 2, 1, 1, 2)


def everything(params, tiny) -> tuple[np.ndarray, np.ndarray]:
    """What the engine gives for a number of subsets that fills no mesh."""
    prompts = (np.asarray(tiny.tokens), np.asarray(tiny.lengths))
    replaced, fill = np.asarray(tiny.keep(0, 6)) == 0, np.asarray(tiny.fill)
    targets, at = np.asarray(tiny.targets), np.array([3, 6])
    common = (tiny.config, replaced, fill)
    return (
        sweeps.metric_under_subsets(params, *prompts, targets, *common, chunk=4),
        sweeps.losses_under_subsets(params, prompts[0], *common, at, chunk=4),
    )


def test_the_engine_gives_the_same_numbers_on_a_mesh(tiny_gqa):
    mesh = make_mesh("4x2")
    assert mesh is not None
    abstract = family("llama").abstract(tiny_gqa.config)
    params = jax.device_put(tiny_gqa.params, shardings(abstract, mesh))
    assert mesh_of(params) is not None
    whole = everything(tiny_gqa.params, tiny_gqa)
    for split_up, values in zip(everything(params, tiny_gqa), whole, strict=True):
        assert_close(split_up, values)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["8", "2x2"])
def test_a_study_gives_the_same_arrays_on_a_mesh(model_folder, tmp_path, spec):
    one = run_study(load(model_folder), SMALL, tmp_path / "one")
    model = load(model_folder, mesh=make_mesh(spec))
    several = run_study(model, SMALL, tmp_path / "several")
    assert set(several.arrays) == set(one.arrays)
    for name, values in one.arrays.items():
        assert_close(several.arrays[name], values)
