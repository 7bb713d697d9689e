"""The targets of the paper hold the published numbers (spec_genesis §2.6, spec_dira §5) and run on small stores."""

import numpy as np
import pytest
from runs import volume_store
from safetensors.torch import load_file

from scanlearn.engine.recipe import load_recipe
from scanlearn.scans.prepare import prepare
from scanlearn.tasks.finetune import finetune

KERAS = ("plateau", 0.5, 6, 1e-4, 1e-6)
CUBE = [64, 64, 32]
# name: input, batch, Adam's rate, validations without a better figure that end it, schedule
PUBLISHED = {
    "target_ncc": (CUBE, 24, 1e-3, 10, KERAS),
    "target_ncs": (CUBE, 16, 1e-3, 50, KERAS),
    "target_lcs": (CUBE, 16, 1e-3, 20, KERAS),
    "target_bms": (CUBE, 16, 1e-3, 30, KERAS),
    "target_dxc": (None, 32, 2e-4, 11, ("plateau", 0.5, 6, 1e-4, 0.0)),
    "target_chexpert": (None, 32, 2e-4, 11, ("plateau", 0.5, 6, 1e-4, 0.0)),
    "target_pxs": ([224, 224], 32, 1e-3, 20, None),
    "target_siim": ([224, 224], 32, 1e-3, 20, None),
    "target_montgomery": ([224, 224], 32, 1e-3, 20, None),
}
OF_DIRA = ["target_siim", "target_montgomery"]
SEGMENTING = ["target_ncs", "target_lcs", "target_bms", "target_pxs", *OF_DIRA]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_target_holds_the_published_numbers(name):
    recipe, (size, batch, rate, patience, schedule) = load_recipe(name), PUBLISHED[name]
    assert (recipe.size, recipe.batch_size) == (size, batch)
    optimizer = recipe.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.betas, optimizer.weight_decay) == ("adam", rate, (0.9, 0.999), 0.0)
    assert recipe.stopping.patience == patience and recipe.stopping.restore_best and recipe.clip_norm is None
    found = recipe.schedule
    if schedule is not None:
        assert (found.name, found.gamma, found.patience, found.min_delta, found.floor) == schedule
    assert found.warmup_steps == 0


def test_cubes_that_are_cut_beforehand_are_validated_once_per_pass_others_every_1600_cubes():
    for name in PUBLISHED:
        recipe = load_recipe(name)
        passes = (recipe.stopping.every, recipe.stopping.per_epoch) == (1, True)
        assert passes or recipe.stopping.every * recipe.batch_size == 1600
        assert passes == (name not in ("target_lcs", "target_bms"))


@pytest.mark.parametrize("name", SEGMENTING)
def test_segmentation_targets_learn_one_minus_the_dice_of_the_flattened_batch_with_smooth_1(name):
    objective = load_recipe(name).objectives["segment"]
    wanted = {"dice": 1.0, "cross_entropy": 0.0, "batch_dice": True, "smooth": 1.0}
    assert wanted.items() <= objective.items()


@pytest.mark.parametrize("name", OF_DIRA)
def test_the_segmentation_targets_of_dira_have_its_network_and_run_200_passes_down_a_cosine(name):
    recipe = load_recipe(name)
    assert recipe.network.encoder == {"name": "resnet50", "in_channels": 3}
    assert recipe.network.decoder == {"name": "unet_blocks"}
    assert (recipe.schedule.name, recipe.schedule.per_epoch, recipe.epochs) == ("cosine", True, 200)


def test_chexpert_judges_five_findings_by_ten_crops_and_smooths_uncertain_ones():
    how = load_recipe("target_chexpert").classification
    assert (how.uncertain, how.mean_over, how.crops, how.per) == ("lsr_ones", ["chexpert_tasks"], 10, "scan")


def test_nodules_are_classified_through_a_dense_layer_of_1024_and_findings_by_fourteen_outputs_at_224_pixels():
    assert load_recipe("target_ncc").objectives["classify"]["hidden"] == 1024
    dxc = load_recipe("target_dxc")
    assert dxc.objectives["classify"] == {"weight": 1.0, "view": "image", "classes": 14, "multilabel": True}
    assert dxc.views["image"]["ops"][0] == {"random_resized_crop": {"size": 224, "scale": [0.08, 1.0]}}


def test_pneumothorax_follows_a_cosine_over_200_passes():
    recipe = load_recipe("target_pxs")
    assert (recipe.schedule.name, recipe.schedule.per_epoch, recipe.epochs) == ("cosine", True, 200)


# ---------------------------------------------------------------- on small stores

SMALL = {"steps": 3, "stopping.every": 2, "stopping.per_epoch": False, "batch_size": 4, "precision": "32-true"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Volumes with masks and a label; pictures with masks, and with several findings each."""
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    file = {"patient": np.arange(20), "image": rng.integers(0, 255, (20, 16, 16), dtype=np.uint8)}
    findings = [["Mass", "Nodule", "Effusion|Mass", "Effusion|Nodule|Mass", "No Finding"][i % 5] for i in range(20)]
    np.savez(folder / "pictures.npz", **file, findings=findings, mask=(file["image"] > 200).astype(np.uint8))
    volumes = np.load(volume_store(folder, count=20, size=16).path.parent / "volumes.npz")
    np.savez(folder / "candidates.npz", **{k: volumes[k] for k in ("image", "patient")}, label=np.arange(20) % 2)
    return {
        "pictures": prepare(folder / "pictures.npz", folder / "pictures", workers=1),
        "candidates": prepare(folder / "candidates.npz", folder / "candidates", workers=1, target="label"),
        "volumes": folder / "store",
    }


@pytest.mark.parametrize(
    ("name", "store", "target"),
    [
        ("target_ncc", "candidates", "label"),
        ("target_dxc", "pictures", "findings"),
        ("target_ncs", "volumes", None),
        ("target_lcs", "volumes", None),
        ("target_bms", "volumes", None),
        ("target_pxs", "pictures", None),
    ],
)
def test_a_target_is_trained_validated_and_tested(stores, tmp_path, name, store, target):
    task = "segment" if name in SEGMENTING else "classify"
    settings = {
        **SMALL,
        "network.encoder": {"name": "unet", "width": 2},
        "size": [16] * (2 if store == "pictures" else 3),
    }
    if task == "segment":
        settings["network.decoder"] = {"name": "unet"}
    classes = ["Mass", "Nodule", "Effusion"] if name == "target_dxc" else None
    how = {"target": target, "classes": classes, "recipe": name, "settings": settings}
    results = finetune(stores[store], task, out=tmp_path / "run", **how)
    assert results["steps"] == results["stopping"]["stopped_at"] == 3
    figures = {"auroc"} if task == "classify" else {"dice", "iou", "pooled_dice", "pooled_iou"}
    assert all({"value", "low", "high"} <= results["test"]["macro"][figure].keys() for figure in figures)
    if name == "target_ncc":
        head = load_file(tmp_path / "run" / "encoder" / "head.safetensors")
        assert {key: tuple(value.shape) for key, value in head.items()}["head.1.weight"][0] == 1024
