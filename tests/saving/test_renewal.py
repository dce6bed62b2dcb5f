"""When a chunk is stored whole although a delta pays."""

import numpy as np

import mfstore
from mfstore import errors
from mfstore._core.codec import DIFFERENCE, PREFIX, Codec
from mfstore.format import recipes
from mfstore.format.recipes import recipe_path
from mfstore.saving.deltas import renews


def test_edits_that_add_up_are_renewed_and_differences_are_not():
    assert renews(PREFIX, 70, 100.0, 60)
    assert not renews(PREFIX, 59, 100.0, 40)  # less than RENEW
    assert not renews(PREFIX, 70, 100.0, 69)  # hardly more than before
    assert not renews(PREFIX, 70, 100.0, 0)  # the version before is the base
    assert not renews(DIFFERENCE, 70, 100.0, 60)


def test_weights_that_all_move_are_deltas_against_the_first_version(tmp_path):
    rng = np.random.default_rng(1)
    weights = rng.normal(0, 0.02, 200_000)
    store, key = mfstore.open(tmp_path), None
    for number in range(4):
        key = store.put(weights.astype("float32"), base=key)
        recipe = recipes.decode((tmp_path / recipe_path(str(key))).read_bytes(), Codec(errors))
        whole = sum(chunk.usize for chunk, at in recipes.placed_chunks(recipe) if at.codec != DIFFERENCE)
        assert (whole < 0.1 * weights.nbytes / 2) == (number > 0)
        weights += rng.normal(0, 2e-5, len(weights))
