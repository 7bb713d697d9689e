"""Grad-CAM equals its definition in plain steps, and its figures against boxes are what they are said to be."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from runs import volume_store
from torch import nn

from scanlearn.engine.embedding import grid_boxes
from scanlearn.errors import ScanlearnError
from scanlearn.networks.encoder import Encoder
from scanlearn.networks.network import Network, build_network
from scanlearn.scans.laid_boxes import to_grid
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scanlearn.study.explain_page import explain_page
from scanlearn.tasks.explain import grad_cam, heat, pull_of
from scanlearn.tasks.explain_boxes import OVERLAPS, Case, box_cases, case_figures, hot_box, iou, localisation
from scanlearn.tasks.explain_run import chosen_classes, explain
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.trained import Trained, load_trained


class Tiny(Encoder):
    """Two smooth stages, whose second half can be walked alone."""

    def __init__(self, dims):
        super().__init__("tiny", [3, 4], [1, 2], spatial_dims=dims, in_channels=1)
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first, self.second = conv(1, 3, 3, padding=1), conv(3, 4, 3, stride=2, padding=1)

    def maps(self, x):
        first = torch.tanh(self.first(x))
        return [first, self.rest(first)]

    def rest(self, first):
        return torch.tanh(self.second(first))


def tiny(dims):
    network = Network(Tiny(dims)).double().eval()
    head = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return network, head


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stage", [0, 1, -1])
def test_a_map_is_its_channels_weighted_by_what_raising_each_of_them_does_to_the_logit(dims, stage):
    network, head = tiny(dims)
    image, place, step = torch.rand(1, 1, *[6] * dims, dtype=torch.float64), 2, 1e-5
    with torch.no_grad():
        maps = network.features(image)
        pooled, at = maps[-1].flatten(2).mean(2), maps[stage][0]

        def logit(values):
            last = network.encoder.rest(values[None]) if stage == 0 else values[None]
            return head(last.flatten(2).mean(2))[0, place]

        expected = torch.zeros(at.shape[1:], dtype=torch.float64)
        for k in range(len(at)):
            up, down = at.clone(), at.clone()
            up[k] += step
            down[k] -= step
            mean_gradient = (logit(up) - logit(down)) / (2 * step) / at[k].numel()
            for where in np.ndindex(*at.shape[1:]):
                expected[where] += mean_gradient * at[(k, *where)]
        for where in np.ndindex(*expected.shape):
            expected[where] = max(expected[where], torch.tensor(0.0, dtype=torch.float64))
    found = grad_cam(network, pull_of(head, pooled, place), image, stage)
    assert torch.allclose(found[0], expected, rtol=1e-6, atol=1e-12)
    assert all(parameter.grad is None for parameter in [*network.parameters(), *head.parameters()])


def test_a_batch_gives_what_each_image_gives():
    network, head = tiny(2)
    images = torch.rand(4, 1, 6, 8, dtype=torch.float64)
    pull = pull_of(head, network.pooled(images), 0)
    together = grad_cam(network, pull, images, 0)
    each = [grad_cam(network, pull[i : i + 1], images[i : i + 1], 0)[0] for i in range(4)]
    assert torch.allclose(together, torch.stack(each)) and together.shape == (4, 6, 8) and (together >= 0).all()


@pytest.mark.parametrize(
    "encoder", [{"name": "resnet18", "width": 2}, {"name": "unet", "width": 2}, {"name": "densenet121", "width": 4}]
)
def test_every_stage_of_the_usual_encoders_can_be_asked(encoder):
    network = build_network({"encoder": {"spatial_dims": 2, **encoder}, "decoder": None}).eval()
    images = torch.rand(2, 1, 64, 64)
    sizes = [tuple(m.shape[2:]) for m in network.features(images)]
    pull = torch.rand(2, network.encoder.num_features)
    for stage in (0, 2, -1):
        found = grad_cam(network, pull, images, stage)
        assert tuple(found.shape[1:]) == sizes[stage] and not found.requires_grad


def test_a_stage_that_is_not_there_or_says_nothing_is_refused():
    network, _ = tiny(2)
    with pytest.raises(ScanlearnError, match="has 2 stages, counted from 0: there is no stage 2"):
        grad_cam(network, torch.rand(1, 4).double(), torch.rand(1, 1, 4, 4).double(), 2)
    network.encoder.maps = lambda x: [network.encoder.first(x), network.encoder.rest(network.encoder.first(x))]
    with pytest.raises(ScanlearnError, match="does not pass through its stage 0"):
        grad_cam(network, torch.rand(1, 4).double(), torch.rand(1, 1, 4, 4).double(), 0)


def test_a_volume_is_the_mean_of_its_patches_maps_with_the_gradient_of_the_whole(tmp_path):
    store = volume_store(tmp_path, size=20)
    network = build_network({"encoder": {"name": "unet", "width": 2}, "decoder": None}).eval()
    facts = {"input_size": [16, 16, 16], "multilabel": False, "classes": ["a", "b"]}
    head = {"head.1.weight": torch.rand(2, network.encoder.num_features), "head.1.bias": torch.zeros(2)}
    trained = Trained(network, head, facts)
    found, scores = heat(trained, store, 1, [1])
    low, high = (float(bound[0]) for bound in store.window(np.array([1])))
    total, count, features = np.zeros((20, 20, 20)), np.zeros((20, 20, 20)), []
    boxes = grid_boxes((20, 20, 20), (16, 16, 16))
    for start, stop in boxes:
        patch = torch.from_numpy((store.read([1], [(start, stop)])[0].astype(np.float32) - low) / (high - low))[None]
        features.append(network.pooled(patch).detach())
        small = torch.einsum("k,kxyz->xyz", head["head.1.weight"][1] / 8, network.features(patch)[-1][0].detach())
        where = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        large = nn.functional.interpolate(small.relu()[None, None], (16, 16, 16), mode="trilinear")
        total[where] += large[0, 0].numpy()
        count[where] += 1
    expected = total / count
    np.testing.assert_allclose(found[0], expected / expected.max(), atol=1e-4)
    logits = torch.cat(features).mean(0) @ head["head.1.weight"].T
    np.testing.assert_allclose(scores, torch.softmax(logits, 0).numpy(), atol=1e-5)
    assert len(boxes) == 8 and found.max() == 1 and found.dtype == np.float32


# ---------------------------------------------------------------- the figures


def test_the_hot_spot_is_the_largest_connected_part_and_a_corner_connects():
    map_ = np.zeros((6, 8))
    map_[0, 0] = 1.0
    map_[2:4, 3:5] = 0.6
    map_[4, 5] = 0.5
    np.testing.assert_array_equal(hot_box(map_, 0.5), [2, 3, 5, 6])
    np.testing.assert_array_equal(hot_box(map_, 0.7), [0, 0, 1, 1])
    assert hot_box(np.zeros((4, 4)), 0.5) is None


def test_overlaps_hits_and_shares_are_counted_by_hand():
    np.testing.assert_allclose(iou(np.array([0.0, 0, 2, 2]), np.array([[1.0, 1, 3, 3], [0, 0, 2, 2]])), [1 / 7, 1])
    map_ = np.zeros((4, 4))
    map_[1:3, 1:3] = 1.0
    found = case_figures(map_, np.array([[1.0, 1, 3, 4], [0, 0, 1, 1]]), 0.5)
    assert found == {"iou": pytest.approx(4 / 6), "hit": 1.0, "share": pytest.approx(7 / 16)}
    assert case_figures(map_, np.array([[3.0, 3, 4, 4]]), 0.5) == {"iou": 0.0, "hit": 0.0, "share": 1 / 16}
    nothing = case_figures(np.zeros((4, 4)), np.array([[0.0, 0, 4, 4]]), 0.5)
    assert nothing == {"iou": 0.0, "hit": 0.0, "share": 1.0}


def test_figures_are_means_over_cases_of_a_class_and_intervals_come_from_patients():
    generator = np.random.default_rng(0)
    cases = [Case(i, "ab"[i % 3 == 0], np.zeros((1, 4))) for i in range(60)]
    found = [{"iou": generator.random(), "hit": float(i % 2), "share": 0.1 + 0.1 * (i % 3 == 0)} for i in range(60)]
    judged = localisation(cases, found, np.array([f"p{i // 2}" for i in range(60)]))
    of_b = [f for f, case in zip(found, cases, strict=True) if case.name == "b"]
    told = judged["classes"]["b"]
    assert told["iou"]["value"] == pytest.approx(np.mean([f["iou"] for f in of_b])) and told["cases"] == 20
    assert told["iou"]["low"] < told["iou"]["value"] < told["iou"]["high"]
    assert told["pointing"]["value"] == pytest.approx(np.mean([f["hit"] for f in of_b]))
    for least in OVERLAPS:
        assert told[f"above_{least:g}"]["value"] == pytest.approx(np.mean([f["iou"] > least for f in of_b]))
    mean = np.mean([judged["classes"][name]["iou"]["value"] for name in "ab"])
    assert judged["macro"]["iou"]["value"] == pytest.approx(mean) and judged["macro"]["share"] == pytest.approx(0.15)
    assert (judged["cases"], judged["patients"]) == (60, 30)


# ---------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Images of 40 x 56 on a grid of 32 x 32: "square" is bright and has a box, "bar" at the right edge has none."""
    folder = tmp_path_factory.mktemp("Hospital")
    generator = np.random.default_rng(0)
    lines = ["image,patient,findings,boxes,box_findings,split"]
    for i in range(96):
        pixels, shown, cell, names = generator.integers(0, 60, (40, 56)).astype(np.uint8), [], "none", ""
        if i % 2:
            y, x = generator.integers(0, 28), generator.integers(0, 36)
            pixels[y : y + 12, x : x + 12] += 180
            shown, cell, names = [*shown, "square"], f"{x} {y} 12 12", "square"
        if i // 2 % 2:
            pixels[:, 52:] += 120
            shown.append("bar")
        Image.fromarray(pixels).save(folder / f"smith{i}.png")
        part = ("train", "train", "train", "val", "test", "test")[i // 4 % 6]
        lines.append(f"smith{i}.png,smith{i},{'|'.join(shown) or 'none'},{cell},{names},{part}")
    (folder / "table.csv").write_text("\n".join(lines))
    prepare(folder / "table.csv", folder / "store", size=(32, 32), workers=0)
    settings = {"steps": 60, "batch_size": 16, "precision": "32-true", "optimizer.lr": 0.01, "views.image.ops": []}
    settings |= {
        "network.encoder": {"name": "resnet10", "width": 4, "stem": "small"},
        "log_every": 60,
        "size": [32, 32],
    }
    finetune(folder / "store", "classify", out=folder / "run", target="findings", settings=settings)
    return folder


def test_a_classifier_of_squares_looks_at_the_squares(squares, tmp_path):
    store = open_store(squares / "store")
    results = explain(squares / "run", store, out=tmp_path / "out", classes=["square"], stage=2)
    judged = results["localisation"]["classes"]["square"]
    assert judged["cases"] == 16 == len(results["cases"])
    assert judged["share"] < 0.1 and judged["pointing"]["value"] > 0.8 and judged["iou"]["value"] > 0.25
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    assert again == results and again["part"] == "test"
    same = "The test part was compared with the fine-tuning of run by identical files and patients."
    assert results["checked"]["done"] == [same] and results["checked"]["open"] == []
    trained, case = load_trained(squares / "run"), results["cases"][0]
    maps, scores = heat(trained, store, case["row"], [trained.facts["classes"].index("square")], 2)
    boxes = box_cases(store, np.array([case["row"]]), ["square"])[0].boxes
    assert case_figures(maps[0], boxes, 0.5)["iou"] == pytest.approx(case["iou"])
    assert scores[trained.facts["classes"].index("square")] == pytest.approx(case["probability"], abs=1e-5)


def test_boxes_lie_on_the_grid_of_the_store_and_only_those_of_the_class_count(squares):
    store = open_store(squares / "store")
    rows = np.asarray(store.splits["test"])
    cases = box_cases(store, rows, ["square", "bar"])
    assert {case.name for case in cases} == {"square"} and {case.row for case in cases} <= set(rows.tolist())
    sides = cases[0].boxes[0, 2:] - cases[0].boxes[0, :2]
    np.testing.assert_allclose(
        sides, np.diff(to_grid(store, rows[:1], np.array([[0.0, 0, 12, 12]])).reshape(2, 2), axis=0)[0]
    )
    with pytest.raises(ScanlearnError, match="No box of bar was drawn on the scans"):
        box_cases(store, rows, ["bar"])


def test_the_classes_are_those_of_the_boxes_or_the_last(squares):
    store = open_store(squares / "store")
    assert chosen_classes(["bar", "square"], None, store) == ["square"]
    assert chosen_classes(["bar", "square", "x"], None, None) == ["x"]
    with pytest.raises(ScanlearnError, match="did you mean 'square'"):
        chosen_classes(["bar", "square"], ["sqare"], store)


def test_what_cannot_be_explained_is_refused_in_a_sentence(squares, tmp_path):
    with pytest.raises(ScanlearnError, match="did you mean 'test'"):
        explain(squares / "run", squares / "store", out=tmp_path, part="tset")
    with pytest.raises(ScanlearnError, match="between 0 and 1, not 2"):
        explain(squares / "run", squares / "store", out=tmp_path, threshold=2)
    with pytest.raises(ScanlearnError, match="takes 2D scans, store holds 3D ones"):
        explain(squares / "run", volume_store(tmp_path), out=tmp_path)
    names = ["boxes"]
    catalog = SimpleNamespace(
        label_columns=names,
        extra_columns=names,
        table=SimpleNamespace(column_names=names),
        column=lambda name: ["1 1 2 2"],
    )
    bare = SimpleNamespace(path=tmp_path, spatial_dims=2, catalog=catalog)
    with pytest.raises(ScanlearnError, match="does not say what its boxes show"):
        box_cases(bare, np.array([0]), ["a", "b"])


@pytest.mark.parametrize("boxed", [True, False])
def test_the_page_shows_the_maps_and_names_nobody(squares, tmp_path, boxed):
    store, name = open_store(squares / "store"), "square"
    if not boxed:  # the same scans in a store without boxes
        lines = [line.split(",") for line in (squares / "table.csv").read_text().splitlines()]
        table = squares / "without.csv"
        table.write_text("\n".join(",".join([*line[:3], line[5]]) for line in lines))
        store, name = prepare(table, tmp_path / "without", size=(32, 32), workers=0), "bar"
    explain(squares / "run", store, out=tmp_path / "out", classes=[name])
    page = explain_page(tmp_path / "out", squares / "run", store).read_text()
    assert ("box of the hot spot" in page) == boxed == ("blind finger" in page)
    assert page.count("<figure") == (8 if boxed else 4)
    assert "smith" not in page and "Hospital" not in page and str(tmp_path) not in page


def test_a_page_of_another_store_is_refused(squares, tmp_path):
    explain(squares / "run", squares / "store", out=tmp_path / "out", classes=["square"])
    with pytest.raises(ScanlearnError, match="is not the store that was explained"):
        explain_page(tmp_path / "out", squares / "run", volume_store(tmp_path))
