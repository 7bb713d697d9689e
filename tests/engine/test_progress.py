import numpy as np
import pytest
from runs import image_store, moco_recipe

from scanlearn.engine.pretrain import pretrain
from scanlearn.engine.run_folder import RunFolder


def test_a_logged_figure_is_the_mean_of_the_steps_since_the_last_line(tmp_path):
    # Nothing is rounded before the mean, and no earlier step is in it.
    store = image_store(tmp_path)
    lines = {}
    for every in (1, 4):
        recipe = moco_recipe(log_every=every, monitor={"every": -1})
        pretrain(store, recipe, tmp_path / f"every{every}")
        lines[every] = RunFolder(tmp_path / f"every{every}").read_metrics("train")
    assert [line["step"] for line in lines[4]] == [4, 8, 12]
    for name in ("loss", "momentum_contrast", "contrast_accuracy"):
        single = np.array([line[name] for line in lines[1]])
        assert [line[name] for line in lines[4]] == pytest.approx(single.reshape(3, 4).mean(1), rel=1e-5), name
    rates = [line["learning_rate"] for line in lines[1]]
    assert [line["learning_rate"] for line in lines[4]] == rates[3::4]  # the rate is that of the step itself
