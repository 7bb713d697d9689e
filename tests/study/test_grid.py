import numpy as np
import pytest
from runs import image_store, volume_store

from scanlearn.engine.recipe import load_recipe
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import open_store
from scanlearn.study.checks import masks_seen
from scanlearn.study.grid import build_grid, pretrainings
from scanlearn.study.plan import load_plan

GENESIS = {"steps": 2, "size": [16, 16, 16], "network.encoder": {"name": "unet", "width": 2}}
SMALL = {"network.encoder": {"name": "unet", "width": 2}, "steps": 5}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    image_store(folder)
    return open_store(folder / "store")


def grid_of(store, methods, **changes):
    words = {"store": str(store.path), "task": "classify", "target": "label", "labels": [4, "all"], "seeds": 3}
    return build_grid(load_plan({**words, "methods": methods, **changes}), store)


def test_methods_with_equal_pretraining_share_it(store):
    moco = {"recipe": "moco_v2_small", "pretraining": SMALL}
    grid = grid_of(store, {"scratch": None, "moco": moco, "frozen": {"like": "moco", "mode": "frozen"}})
    assert [p.name for p in grid.pretrainings] == ["moco-seed0"]
    assert len(grid.cells) == 3 * 2 * 3 and len({cell.name for cell in grid.cells}) == len(grid.cells)
    assert grid.twins == {"moco": "scratch", "frozen": "scratch"}


def test_every_architecture_has_its_own_twin_from_scratch(store):
    small = {"recipe": "moco_v2_small", "pretraining": SMALL}
    large = {"recipe": "moco_v2_small", "pretraining": {**SMALL, "network.encoder": {"name": "unet", "width": 4}}}
    grid = grid_of(store, {"scratch": None, "small": small, "large": large})
    assert grid.twins == {"small": "scratch_like_small", "large": "scratch_like_large"}
    starts = {cell.method: cell.start.name for cell in grid.cells}
    assert starts["scratch_like_large"] == starts["large"] == "large-seed0"
    assert {cell.method for cell in grid.cells if cell.from_scratch} == set(grid.twins.values())


def test_one_encoder_for_all_leaves_one_twin_and_gives_restoring_methods_a_decoder_that_fits(store):
    methods = {"scratch": None, "moco": {"recipe": "moco_v2_small"}, "genesis": {"recipe": "models_genesis_2d_small"}}
    size = {"moco": {"views.query.ops": [{"random_resized_crop": {"size": 64}}]}, "genesis": {}}
    for name, settings in size.items():
        methods[name]["pretraining"] = settings
    grid = grid_of(store, methods, encoder="resnet18")
    assert set(grid.twins.values()) == {"scratch"}
    for pretraining in grid.pretrainings:
        assert load_recipe(pretraining.recipe, pretraining.overrides).network.encoder == {"name": "resnet18"}


def test_a_published_unet_that_is_given_another_encoder_gets_a_decoder_that_fits_it():
    methods = {"scratch": None, "genesis": {"recipe": "models_genesis_3d_small"}}
    words = {"store": "s", "task": "segment", "methods": methods, "encoder": {"name": "resnet18", "width": 8}}
    plan = load_plan(words)
    settings = pretrainings("genesis", plan.methods["genesis"], plan)[0].overrides
    assert settings["network.decoder"]["name"] == "unet_blocks"
    assert load_recipe("models_genesis_3d_small", settings).network.encoder == {"name": "resnet18", "width": 8}


def test_methods_that_learn_from_words_are_given_the_table_and_others_are_not(store):
    words = {**SMALL, "patches": "words"}
    methods = {
        "scratch": None,
        "random": {"recipe": "models_genesis_2d_small", "pretraining": SMALL},
        "words": {"recipe": "models_genesis_2d_small", "pretraining": words},
        "other": {"recipe": "models_genesis_2d_small", "pretraining": words, "words": "tables/other"},
        "like": {"like": "other", "transfer": "encoder"},
    }
    grid = grid_of(store, methods, words="tables/words")
    assert {p.name: p.words for p in grid.pretrainings} == {
        "random-seed0": None,
        "words-seed0": "tables/words",
        "other-seed0": "tables/other",
    }
    with pytest.raises(ScanlearnError, match="add words: WORDS"):
        grid_of(store, methods)


def test_a_method_without_a_decoder_shares_the_twin_of_those_that_have_the_one_it_will_get(tmp_path):
    genesis = {"recipe": "models_genesis_3d_small", "pretraining": GENESIS}
    rotation = {"recipe": "rotation_3d_small", "pretraining": GENESIS}
    wider = {**rotation, "pretraining": {**GENESIS, "network.encoder": {"name": "unet", "width": 4}}}
    store = volume_store(tmp_path)
    words = {"store": str(store.path), "task": "segment", "labels": [2], "seeds": 1}
    methods = {"scratch": None, "genesis": genesis, "rotation": rotation}
    assert set(build_grid(load_plan({**words, "methods": methods}), store).twins.values()) == {"scratch"}
    twins = build_grid(load_plan({**words, "methods": {**methods, "wider": wider}}), store).twins
    assert twins["rotation"] == twins["genesis"] != twins["wider"]


def test_cells_come_in_pairs_so_that_an_early_stop_leaves_comparisons(store):
    grid = grid_of(store, {"scratch": None, "moco": {"recipe": "moco_v2_small", "pretraining": SMALL}})
    order = [(cell.labels, cell.seed, cell.method) for cell in grid.cells]
    assert order[:4] == [(4, 0, "scratch"), (4, 0, "moco"), (4, 1, "scratch"), (4, 1, "moco")]


def test_seeds_take_turns_with_pretrainings(store):
    moco = {"recipe": "moco_v2_small", "pretraining": SMALL}
    grid = grid_of(store, {"scratch": None, "moco": moco}, pretraining_seeds=2)
    taken = [cell.start.seed for cell in grid.cells if cell.method == "moco" and cell.labels == 4]
    np.testing.assert_array_equal(taken, [0, 1, 0])


def test_two_methods_from_scratch_are_refused(store):
    with pytest.raises(ScanlearnError, match="several methods from scratch"):
        grid_of(store, {"scratch": None, "scratch_b": {}, "moco": {"recipe": "moco_v2_small", "pretraining": SMALL}})


def test_methods_with_a_fine_tuning_of_their_own_are_no_twins_and_a_pretraining_before_it_has_one(volumes):
    methods = {
        "encdec": {"finetuning_recipe": "encdec_small"},
        "ss_cpcseg": {"finetuning_recipe": "ss_cpcseg_small"},
        "genesis": {"recipe": "models_genesis_3d_small", "finetuning_recipe": "encdec_small"},
    }
    plan = load_plan({"store": "s", "task": "segment", "methods": methods, "labels": [3], "seeds": 1})
    grid = build_grid(plan, volumes.store)
    assert grid.methods == list(methods) and grid.twins == {"genesis": "encdec"}
    assert [(cell.start == "", cell.from_scratch) for cell in grid.cells] == [
        (True, True),
        (True, True),
        (False, False),
    ]
    assert grid.cells[2].start == grid.pretrainings[0]


def test_a_pretraining_with_masks_is_done_for_each_fine_tuning_with_its_masks(volumes):
    joint = {"recipe": "models_genesis_3d_small", "pretraining": {**GENESIS, "objectives.segment.weight": 1.0}}
    plain = {"recipe": "models_genesis_3d_small", "pretraining": GENESIS}
    words = {"store": str(volumes.store.path), "task": "segment", "labels": [2, "50%"], "seeds": 2}
    plan = load_plan({**words, "methods": {"scratch": None, "joint": joint, "plain": plain}})
    grid = build_grid(plan, volumes.store)
    with_masks = {(p.name, p.labels, p.seed) for p in grid.pretrainings if p.labels is not None}
    assert with_masks == {
        (f"joint-{word}-seed{s}", n, s) for n, word in ((2, "2"), ("50%", "50percent")) for s in (0, 1)
    }
    for cell in grid.cells:
        if cell.method == "joint":
            assert (cell.start.labels, cell.start.seed, cell.start.method) == (cell.labels, cell.seed, "joint")
        elif cell.method == "plain":
            assert cell.start.labels is None and cell.start.method == "plain"
    assert masks_seen(plan, grid) == [
        "joint is pre-trained with the masks that it is fine-tuned with: it does not begin without labels."
    ]
