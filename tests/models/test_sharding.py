"""Params over a mesh of devices: the same numbers as on one."""

import jax
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close
from jax.sharding import Mesh, PartitionSpec
from model_folder import write_folder

import jaxheads as jh
from jaxheads.engine.devices import shardings
from jaxheads.models import family
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.weights.digest import params_sha256

pytestmark = pytest.mark.usefixtures("quick_compilation")


def mesh_of(data: int, model: int) -> Mesh:
    devices = np.array(jax.devices()[: data * model])
    return Mesh(devices.reshape(data, model), ("data", "model"))


def everything(params, tiny: Tiny) -> tuple[jax.Array, ...]:
    """What each of the public functions gives, under an ablation."""
    keep, config = tiny.keep(0), tiny.config
    ablation = jh.Ablation(keep, tiny.fill, tiny.last)
    out = jh.forward(params, tiny.tokens, config, ablation=ablation, capture=("heads",))
    assert out.heads is not None
    prefix = jh.prefill(params, tiny.tokens, tiny.lengths, config)
    last = jh.last_token_logits(params, prefix, config, jh.Ablation(keep))
    effects = jh.patch_each_head(params, prefix, tiny.fill, tiny.targets, config)
    return out.logits, out.heads, last, effects


QUICK = ("llama-gqa", "gemma2")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(CONFIGS)
    ],
)
def test_sharded_equals_unsharded(name):
    tiny = Tiny(CONFIGS[name])
    # As many parts as divide the heads, so that something is split in every family.
    parts = max(n for n in (2, 3, 4, 5) if tiny.config.num_heads % n == 0)
    mesh = mesh_of(8 // parts, parts)
    abstract = family(tiny.config.model_type).abstract(tiny.config)
    # In float64, where another order of the sums does not show.
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tiny.params)
    with jax.enable_x64(True):
        params = jax.device_put(wide, shardings(abstract, mesh))
        split = [x for x in jax.tree.leaves(params) if not x.is_fully_replicated]
        assert split and all(len(leaf.devices()) == mesh.size for leaf in split)
        whole = everything(jax.device_put(wide), tiny)
        for expected, sharded in zip(whole, everything(params, tiny), strict=True):
            assert_close(sharded, expected, 1e-9)


@pytest.mark.parametrize("explicit", [False, True])
def test_a_folder_loads_onto_a_mesh(tmp_path, tiny_gqa, explicit):
    folder = write_folder(tmp_path / "m", tiny_gqa.config, tiny_gqa.params)
    # jax.make_mesh may give axes whose sharding is part of every type.
    mesh = jax.make_mesh((4, 2), ("data", "model")) if explicit else mesh_of(4, 2)
    model = jh.load(folder, mesh=mesh)
    wq = model.params.layers.wq  # [L, D, H, K]
    assert wq.sharding.spec == PartitionSpec(None, None, "model")
    assert wq.addressable_shards[0].data.shape[2] == tiny_gqa.config.num_heads // 2
    assert model.provenance.params_sha256 == params_sha256(tiny_gqa.params)
    logits = jh.forward(model.params, tiny_gqa.tokens, model.config).logits
    whole = jh.forward(tiny_gqa.params, tiny_gqa.tokens, tiny_gqa.config).logits
    assert_close(logits, whole)


def test_axes_that_do_not_divide_stay_whole(tiny_gqa):
    abstract = family("llama").abstract(tiny_gqa.config)  # 6 query heads, 2 kv heads
    places = shardings(abstract, mesh_of(1, 3))
    assert places.layers.wq.spec == PartitionSpec(None, None, "model")
    assert places.layers.wk.spec == PartitionSpec()
    leaves = jax.tree.leaves(abstract, is_leaf=is_leaf)
    for leaf, place in zip(leaves, jax.tree.leaves(places), strict=True):
        assert isinstance(leaf, Leaf)
        place.shard_shape(leaf.shape)  # raises where it does not divide


def test_a_mesh_without_known_axes_is_refused(tiny_gqa):
    mesh = Mesh(np.array(jax.devices()[:2]), ("x",))
    with pytest.raises(ValueError, match=r'axes "data" and "model".*\(\'x\',\)'):
        shardings(family("llama").abstract(tiny_gqa.config), mesh)
