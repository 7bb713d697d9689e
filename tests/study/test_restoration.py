import shutil

import pytest
import torch
from runs import image_store, staged_recipe

from scanlearn.engine.pretrain import pretrain
from scanlearn.study import looks, restoration
from scanlearn.study.facts import read_facts


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """The facts and the store of a run that discriminates, then restores too, then has an adversary."""
    folder = tmp_path_factory.mktemp("staged")
    store = image_store(folder)
    pretrain(store, staged_recipe(), folder / "run", seed=3)
    return read_facts(folder / "run"), store


def test_sharpness_is_the_mean_step_between_neighbours_over_the_targets():
    image, target = torch.rand(2, 1, 3, 4, 5, dtype=torch.float64), torch.rand(2, 1, 3, 4, 5, dtype=torch.float64)

    def steps(x):
        means = []
        for axis in (2, 3, 4):
            pairs = zip(x.unbind(axis)[:-1], x.unbind(axis)[1:], strict=True)
            means.append(sum(float((a - b).abs().sum()) for a, b in pairs) / (x.numel() * (1 - 1 / x.shape[axis])))
        return sum(means) / 3

    assert restoration.sharpness(image, target) == pytest.approx(steps(image) / steps(target))
    assert restoration.sharpness(target, target) == 1 and restoration.sharpness(torch.ones_like(target), target) == 0
    assert restoration.sharpness(image, torch.ones_like(target)) > 0  # no division by nothing


def test_every_stage_that_restored_is_shown_by_its_own_weights(staged):
    facts, store = staged
    shown, network = looks.first_views(facts, store), looks.trained_network(facts)
    images = restoration.restored_images(facts, network, shown.views)
    assert list(images) == ["restored after dir", "restored after last"]
    kept = restoration.ready_network(facts.run.stages / "2")
    objective = facts.recipe["objectives"]["restore"]
    assert torch.equal(images["restored after dir"], restoration.restored(kept, shown.views, objective))
    assert torch.equal(images["restored after last"], restoration.restored(network, shown.views, objective))
    assert not torch.equal(*images.values())


def test_the_report_shows_input_target_and_each_stage_of_the_same_scans_with_error_and_sharpness(staged):
    facts, store = staged
    strips, words = looks.view_strips(facts, store, looks.trained_network(facts))
    assert len(strips) == looks.SCANS
    for strip in strips:
        captions = [picture.caption for picture in strip.pictures]
        assert captions == ["original", "query", "key", "restored after dir", "restored after last"]
        marked = [picture.mark for picture in strip.pictures]
        assert marked == ["", "", "", "query", "query"]
    for part in ("Mean squared error", "Strength of edges"):
        assert words.count("restored after dir 0.") == 2 and part in words


def test_stages_that_did_not_restore_or_were_not_kept_are_not_shown(staged, tmp_path):
    facts, store = staged
    shown, network = looks.first_views(facts, store), looks.trained_network(facts)
    shutil.copytree(facts.run.path, tmp_path / "run")
    copy = read_facts(tmp_path / "run")
    copy.recipe["stages"][1]["weights"] = {"restore": 0.0}
    assert list(restoration.restored_images(copy, network, shown.views)) == ["restored"]
    shutil.rmtree(tmp_path / "run" / "stages")
    assert list(restoration.restored_images(read_facts(tmp_path / "run"), network, shown.views)) == ["restored"]
    del copy.recipe["objectives"]["restore"]
    assert restoration.restored_images(copy, network, shown.views) == {}
