"""Several findings a scan: what is uncertain, studies of two views, ten crops, from the table to the prediction."""

import json

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from scanlearn.errors import ScanlearnError
from scanlearn.scans.prepare import prepare
from scanlearn.scans.store import open_store
from scanlearn.tasks.classification_metrics import classification_metrics
from scanlearn.tasks.classify import (
    Cases,
    choose_thresholds,
    of_studies,
    scan_scores,
    study_numbers,
    truth_codes,
    truth_words,
)
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.predict import predict
from scanlearn.tasks.trained import load_trained
from scanlearn.tasks.uncertain import POLICIES

FAST = {
    "steps": 40,
    "batch_size": 16,
    "precision": "32-true",
    "optimizer.lr": 0.01,
    "log_every": 30,
    "network.encoder": {"name": "unet", "width": 4},
    "views.image.ops": [],
    "size": [16, 16],
}
COUNT = 160


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Patients of one study with two views; "left" is a bright left half, "top" a bright upper half."""
    folder = tmp_path_factory.mktemp("findings")
    generator = np.random.default_rng(0)
    lines = ["image,findings,patient,study,split,side"]
    for i in range(COUNT):
        patient = i // 2
        if i % 2 == 0:
            shown, known = generator.random(2) < 0.5, generator.random(2) > 0.25
        pixels = generator.integers(0, 60, (20, 20))
        pixels[:, :10] += 120 * shown[0]
        pixels[:10] += 60 * shown[1]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"i{i}.png")
        split = ("train", "train", "train", "val", "test")[patient % 5]
        certain = known | (split == "test")
        words = [("" if k else "?") + w for w, s, k in zip(("left", "top"), shown, certain, strict=True) if s or not k]
        lines.append(f"i{i}.png,{'|'.join(words) or 'none'},p{patient},study1,{split},{'ab'[i % 2]}")
    (folder / "table.csv").write_text("\n".join(lines))
    prepare(folder / "table.csv", folder / "store", workers=0)
    return folder / "store"


def tuned(store, out, **classification):
    settings = FAST | {f"classification.{name}": value for name, value in classification.items()}
    return finetune(store, "classify", out=out, target="findings", settings=settings)


@pytest.mark.parametrize("policy", [p for p in POLICIES if p not in ("ones", "lsr_zeros")])
def test_every_policy_learns_and_is_named_in_the_results(store, tmp_path, policy):
    results = tuned(store, tmp_path / "run", uncertain=policy)
    assert results["uncertain"] == {"left": policy, "top": policy} and results["split"] == "given by the source"
    assert results["test"]["macro"]["auroc"]["value"] > 0.8
    trained = load_trained(tmp_path / "run")  # the head of K outputs gives the scores of the test
    rows = np.array(store_rows(tmp_path / "run"))
    scores = scan_scores(trained.network, trained.class_logits, open_store(store), rows, results, torch.device("cpu"))
    np.testing.assert_allclose(scores, table_scores(tmp_path / "run"), atol=1e-4)
    assert (tmp_path / "run" / "first_pass" / "results.json").exists() == (policy == "self_trained")


def table(run):
    return pq.read_table(run / "predictions.parquet").to_pydict()


def store_rows(run):
    return table(run)["row"]


def table_scores(run):
    return np.stack([table(run)["score_left"], table(run)["score_top"]], axis=1)


def test_self_training_changes_uncertain_targets_only_and_takes_the_probabilities_of_the_first_pass(store, tmp_path):
    from scanlearn.engine.recipe import load_recipe
    from scanlearn.tasks.taught import taught_labels

    asked = []

    def again(name, changed):
        asked.append((name, changed))
        tuned(store, tmp_path / "first", uncertain=changed["classification.uncertain"])
        return tmp_path / "first"

    opened = open_store(store)
    column = opened.catalog.labels("findings")
    plan = load_recipe("finetune_classify", {"classification.uncertain": {"left": "self_trained", "top": "zeros"}})
    truth, taught = taught_labels(opened, "findings", column, plan, 0, again)
    assert (
        asked == [("first_pass", {"classification.uncertain": {"left": "ignore", "top": "zeros"}})] and truth is column
    )
    certain = column.codes != -1
    np.testing.assert_array_equal(taught.codes[certain], column.codes[certain])
    rows = np.flatnonzero(~certain[:, 0])
    trained = load_trained(tmp_path / "first")
    facts = {**trained.facts, "crops": 1}
    scores = scan_scores(trained.network, trained.class_logits, opened, rows, facts, torch.device("cpu"))
    np.testing.assert_allclose(taught.codes[rows, 0], scores[:, 0], atol=1e-6)
    assert (taught.codes[~certain[:, 1], 1] == 0).all()


def test_studies_are_judged_by_the_highest_probability_of_their_views_and_scans_beside_them(store, tmp_path):
    run = tmp_path / "run"
    results = tuned(store, run, per="study", mean_over=["top"])
    single = tuned(store, tmp_path / "scans")
    assert results["test"]["cases"] == 16 and single["test"]["cases"] == 32
    assert results["test_per_scan"]["cases"] == 32 and results["test"]["patients"] == 16
    views, codes = table_scores(tmp_path / "scans"), table(tmp_path / "scans")
    test = np.array(codes["part"]) == "test"
    expected = views[test].reshape(16, 2, 2).max(axis=1)
    np.testing.assert_allclose(table_scores(run)[np.array(table(run)["part"]) == "test"], expected, atol=1e-6)
    auroc = {name: figures["auroc"]["value"] for name, figures in results["test"]["classes"].items()}
    assert set(auroc) == {"left", "top"} and results["test"]["macro"]["auroc"]["value"] == auroc["top"]


def test_a_study_is_of_one_patient_and_shows_what_any_of_its_scans_shows(store):
    opened = open_store(store)
    numbers = study_numbers(opened, np.arange(COUNT))
    assert len(np.unique(numbers)) == COUNT // 2  # every patient's study is called the same
    nan = np.nan
    codes = np.array([[1, 0, -1, nan], [-1, nan, 0, nan], [0, 0, 0, 0]], np.float32)
    found = of_studies(Cases(np.array([5, 6, 7]), np.array([[0.1, 0.9, 0, 0], [0.3, 0.2, 0, 0], [0.5] * 4]), codes),
                       np.array([4, 4, 2]))  # fmt: skip
    assert found.rows.tolist() == [7, 5]
    np.testing.assert_allclose(found.scores[1], [0.3, 0.9, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(found.codes, [[0, 0, 0, 0], [1, 0, -1, nan]])


def test_ten_crops_average_probabilities_in_the_test_and_in_prediction(store, tmp_path):
    run = tmp_path / "run"
    results = tuned(store, run, crops=10)
    assert results["crops"] == 10 and results["test"]["macro"]["auroc"]["value"] > 0.8
    trained, opened = load_trained(run), open_store(store)
    row = store_rows(run)[0]
    from scanlearn.scans.intensity import to_unit
    from scanlearn.scans.resample import resample

    image = to_unit(torch.from_numpy(np.stack(opened.read([row]))), *map(torch.from_numpy, opened.window([row])))
    wide = resample(image, [18, 18])
    crops = [wide[..., y : y + 16, x : x + 16] for y, x in ((0, 0), (0, 2), (2, 0), (2, 2), (1, 1))]
    crops += [torch.flip(crop, [-1]) for crop in crops]
    with torch.no_grad():
        each = [torch.sigmoid(trained.class_logits(trained.network.pooled(crop))).double().numpy() for crop in crops]
    np.testing.assert_allclose(table_scores(run)[0], np.mean(each, axis=0)[0], atol=1e-5)
    file = store.parent / "i6.png"
    predict(run, file, tmp_path / "out", identifiers="kept")
    told = pacsv.read_csv(tmp_path / "out" / "predictions.csv").to_pylist()[0]
    place = opened.catalog.array("sha256").to_pylist().index(digest(file))
    at = store_rows(run).index(place)
    assert [told["left"], told["top"]] == pytest.approx(table_scores(run)[at].tolist(), abs=1e-4)


def digest(file):
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_uncertain_in_the_test_does_not_count_and_is_told():
    scores = np.array([[0.9, 0.2], [0.2, 0.7], [0.8, 0.1], [0.4, 0.6]])
    codes = np.array([[1, 0], [0, -1], [-1, np.nan], [-1, 1]], np.float32)
    patients = np.arange(4)
    found = classification_metrics(scores, codes, ["a", "b"], patients, bootstrap=10)
    known = np.where(codes == -1, np.nan, codes)
    expected = classification_metrics(scores, known, ["a", "b"], patients, bootstrap=10)
    assert found["classes"]["a"].pop("uncertain") == 2 and found["classes"]["b"].pop("uncertain") == 1
    assert json.dumps(found) == json.dumps(expected) and found["missing"] == 1


def test_a_class_without_a_positive_is_left_out_of_the_mean():
    generator = np.random.default_rng(0)
    codes = (generator.random((40, 3)) < 0.5).astype(np.float32)
    codes[:, 1] = 0
    found = classification_metrics(generator.random((40, 3)), codes, ["a", "b", "c"], np.arange(40), bootstrap=10)
    auroc = {name: figures["auroc"]["value"] for name, figures in found["classes"].items()}
    assert np.isnan(auroc["b"]) and found["macro"]["auroc"]["value"] == pytest.approx((auroc["a"] + auroc["c"]) / 2)


def test_a_class_that_the_validation_part_lacks_keeps_one_half_and_the_others_their_own_threshold():
    scores, codes = np.array([[0.1, 0.1], [0.3, 0.2]], np.float32), np.array([[0, 0], [1, 0]], np.float32)
    threshold, how = choose_thresholds(Cases(np.arange(2), scores, codes), ["a", "b"])
    np.testing.assert_allclose(threshold, [0.2, 0.5])
    assert how.startswith("largest sensitivity") and "0.5 for b, of which" in how
    for only, lacking in (
        (codes[:, 0], "largest sensitivity + specificity on the validation part"),
        (codes[:, 1], "0.5"),
    ):
        value, how = choose_thresholds(Cases(np.arange(2), scores, only.astype(np.int64)), ["no", "yes"])
        assert len(value) == 1 and how.startswith(lacking)
    assert how.startswith("0.5 for yes, of which") and value == [0.5]


def test_truth_is_written_and_read_again():
    codes = np.array([[1, 0, -1], [0, 0, 0], [np.nan, 1, 1]], np.float32)
    words = truth_words(codes, ["a", "b", "c"])
    assert words == ["a|?c", "", "?a|b|c"]
    again = np.where(codes == -1, np.nan, codes)
    np.testing.assert_array_equal(truth_codes(words, ["a", "b", "c"]), again)


def test_the_frozen_mode_fits_soft_labels_as_shares(store, tmp_path):
    from scanlearn.tasks.frozen import logistic_regression

    generator = np.random.default_rng(0)
    x = generator.standard_normal((80, 3)).astype(np.float32)
    share = 1 / (1 + np.exp(-3 * x[:, :1]))
    weight, _ = logistic_regression(x, share.astype(np.float32), True, 1)
    repeated = np.concatenate([x] * 100)  # each scan a hundred times, present in its share of them
    drawn = (np.arange(100)[:, None] + 0.5 < 100 * share[:, 0]).astype(np.float32).reshape(-1, 1)
    many, _ = logistic_regression(repeated, drawn, True, 1)
    cosine = (weight @ many.T)[0, 0] / np.linalg.norm(weight) / np.linalg.norm(many)
    assert cosine > 0.999


def test_the_frozen_mode_answers_never_for_a_finding_that_no_labelled_scan_has():
    from scanlearn.tasks.frozen import logistic_regression

    x = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    codes = np.stack([x[:, 0] > 0, np.zeros(12), np.ones(12), np.full(12, np.nan)], axis=1).astype(np.float32)
    weight, bias = logistic_regression(x, codes, True, 4)
    logits = x @ weight.T + bias
    np.testing.assert_array_equal(logits[:, 0] > 0, codes[:, 0] == 1)
    np.testing.assert_allclose(logits[:, 1:], np.tile([-30, 30, -30], (12, 1)), atol=1e-4)


def test_settings_that_cannot_be_met_are_refused_before_the_training(store, tmp_path):
    with pytest.raises(ScanlearnError, match="did you mean 'study'"):
        tuned(store, tmp_path / "a", per="studies")
    with pytest.raises(ScanlearnError, match="did you mean 'zeros'"):
        tuned(store, tmp_path / "a", uncertain="zeroes")
    with pytest.raises(ScanlearnError, match="did you mean 'absent'"):
        tuned(store, tmp_path / "a", unmentioned="absnt")
    with pytest.raises(ScanlearnError, match="no class 'x'"):
        tuned(store, tmp_path / "a", mean_over=["x"])
    with pytest.raises(ScanlearnError, match="crops is 1, or 10"):
        tuned(store, tmp_path / "a", crops=5)
    with pytest.raises(ScanlearnError, match="one label a scan"):
        settings = FAST | {"classification.uncertain": "ones"}
        finetune(store, "classify", out=tmp_path / "a", target="side", settings=settings)
    assert not (tmp_path / "a").exists()
