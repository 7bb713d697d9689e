import numpy as np
import pytest

from scanlearn.tasks import detection_metrics as ours
from scanlearn.tasks.detection_metrics import Boxes, challenge_scores, challenge_threshold, detection_metrics, overlap

# ---------------------------------------------------------------- the rules once more, box by box


def plain_iou(a, b):
    dims, both, volumes = len(a) // 2, 1.0, [1.0, 1.0]
    for axis in range(dims):
        both *= max(0.0, min(a[dims + axis], b[dims + axis]) - max(a[axis], b[axis]))
        for i, box in enumerate((a, b)):
            volumes[i] *= max(0.0, box[dims + axis] - box[axis])
    union = volumes[0] + volumes[1] - both
    return both / union if union > 0 else 0.0


def of_image(boxes, image):
    return [i for i in range(len(boxes)) if boxes.image[i] == image]


def plain_challenge(predicted, truth, image):
    """The challenge's rule for one image, or None where it does not count."""
    pred = sorted(of_image(predicted, image), key=lambda i: -predicted.score[i])
    gt = of_image(truth, image)
    if not gt and not pred:
        return None
    if not gt:
        return 0.0
    scores = []
    for t in (0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75):
        used, tp = set(), 0
        for g in gt:
            for p in pred:
                if p not in used and plain_iou(truth.corners[g], predicted.corners[p]) >= t:
                    used.add(p)
                    tp += 1
                    break
        scores.append(tp / (tp + (len(pred) - tp) + (len(gt) - tp)))
    return sum(scores) / len(scores)


def plain_ap(predicted, truth, images, t, most=100):
    """COCO's average precision at one IoU: greedy matching, then 101 recalls of the ranked list."""
    if not len(truth):
        return float("nan")
    listed = []
    for image in range(images):
        pred = sorted(of_image(predicted, image), key=lambda i: -predicted.score[i])[:most]
        taken = set()
        for p in pred:
            best, match = t, None
            for g in of_image(truth, image):
                iou = plain_iou(predicted.corners[p], truth.corners[g])
                if g not in taken and iou >= best:
                    best, match = iou, g
            taken.add(match)
            listed.append((predicted.score[p], p, match is not None))
    listed.sort(key=lambda row: (-row[0], row[1]))
    hits, curve = 0, []
    for rank, (_, _, right) in enumerate(listed, 1):
        hits += right
        curve.append((hits / len(truth), hits / rank))
    at = [max([p for recall, p in curve if recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
    return sum(at) / 101


# ---------------------------------------------------------------- random cases


def table(boxes, dims=2):
    """Rows of (image, score, *corners)."""
    array = np.array(boxes, float).reshape(-1, 2 + 2 * dims)
    return Boxes(array[:, 0].astype(int), array[:, 2:], array[:, 1])


def random_case(seed, images=12, dims=2, most=5):
    """Reference boxes, and predictions near them and elsewhere; some images without either; scores with ties."""
    rng = np.random.default_rng(seed)
    truth, predicted = [], []
    for image in range(images):
        for _ in range(rng.integers(0, most) * rng.integers(0, 2)):
            low = rng.integers(0, 20, dims)
            box = np.concatenate([low, low + rng.integers(4, 12, dims)])
            truth.append([image, 0, *box])
            for _ in range(rng.integers(0, 3)):
                predicted.append([image, rng.integers(1, 10) / 10, *(box + rng.integers(-1, 2, 2 * dims))])
        for _ in range(rng.integers(0, most - 1) * rng.integers(0, 2)):
            low = rng.integers(0, 20, dims)
            predicted.append([image, rng.integers(1, 10) / 10, *np.concatenate([low, low + rng.integers(1, 12, dims)])])
    predicted, truth = table(predicted, dims), table(truth, dims)
    return predicted.rows(rng.permutation(len(predicted))), truth.rows(rng.permutation(len(truth)))


@pytest.mark.parametrize("dims", [2, 3])
def test_overlap_equals_a_plain_loop_and_empty_boxes_overlap_nothing(dims):
    predicted, truth = random_case(1, dims=dims)
    found = overlap(predicted.corners[:, None], truth.corners[None])
    wanted = [[plain_iou(a, b) for b in truth.corners] for a in predicted.corners]
    assert np.allclose(found, wanted) and found.max() > 0.5
    assert overlap(np.zeros(2 * dims), np.zeros(2 * dims)) == 0


@pytest.mark.parametrize("together", [1, 600, 1 << 22])
@pytest.mark.parametrize("seed", range(8))
def test_the_challenge_score_of_each_image_equals_the_plain_rule(seed, together, monkeypatch):
    monkeypatch.setattr(ours, "_TOGETHER", together)  # numbers that fit into memory at once change nothing
    predicted, truth = random_case(seed, images=40, dims=3 if seed % 4 == 3 else 2)
    wanted = [plain_challenge(predicted, truth, image) for image in range(40)]
    assert None in wanted and 0.0 in wanted and any(0 < (w or 0) < 1 for w in wanted)
    found = challenge_scores(predicted, truth, 40)
    assert np.allclose(found, [np.nan if w is None else w for w in wanted], equal_nan=True)


@pytest.mark.parametrize("together", [1, 600, 1 << 22])
@pytest.mark.parametrize("seed", range(8))
def test_average_precision_equals_the_plain_rule(seed, together, monkeypatch):
    monkeypatch.setattr(ours, "_TOGETHER", together)
    predicted, truth = random_case(seed + 20, dims=3 if seed % 4 == 3 else 2)
    result = detection_metrics(predicted, truth, np.arange(12), bootstrap=0)
    wanted = [plain_ap(predicted, truth, 12, t / 100) for t in range(50, 100, 5)]
    assert result["ap"]["value"] == pytest.approx(np.mean(wanted)) and 0.02 < np.mean(wanted) < 1
    assert result["ap50"]["value"] == pytest.approx(wanted[0])


def test_only_the_most_confident_boxes_of_an_image_enter_average_precision(monkeypatch):
    monkeypatch.setattr(ours, "MOST", 2)
    predicted, truth = random_case(3)
    result = detection_metrics(predicted, truth, np.arange(12), bootstrap=0)
    wanted = plain_ap(predicted, truth, 12, 0.5, most=2)
    assert result["ap50"]["value"] == pytest.approx(wanted) != pytest.approx(plain_ap(predicted, truth, 12, 0.5))


# ---------------------------------------------------------------- cases worked out by hand

TRUE = [0, 0, 0, 0, 10, 10]


def test_the_first_reference_takes_the_most_confident_box_even_if_another_fits_better():
    # Both references overlap the first prediction; the second is left with one that only it can take.
    truth = table([[0, 0, 0, 0, 10, 10], [0, 0, 0, 2, 10, 12]])
    predicted = table([[0, 0.9, 0, 2, 10, 12], [0, 0.8, 0, 0, 10, 10]])
    # IoU of the crossed pairs is 80 / 120 = 0.667: crossed up to 0.65, straight above: all are found at each level.
    assert challenge_scores(predicted, truth, 1)[0] == 1.0
    # Alone, the confident one goes to the first reference, and the second finds nothing up to 0.65.
    assert challenge_scores(predicted.rows(np.array([0])), truth, 1)[0] == 0.5
    # COCO gives it to the one that it fits best.
    order, right = ours.coco_matches(predicted, truth, 1)
    assert order.tolist() == [0, 1] and right.all()


def test_of_references_that_fit_equally_coco_takes_the_last():
    first, second = [0, 0, 0, 0, 10, 10], [0, 0, 0, 5, 10, 15]
    # The confident prediction overlaps both by 0.6; the other one is the second reference.
    predicted = table([[0, 0.9, 0, 2.5, 10, 12.5], [0, 0.8, 0, 5, 10, 15]])
    for truth, wanted in (([first, second], [True, False]), ([second, first], [True, True])):
        assert ours.coco_matches(predicted, table(truth), 1)[1][:, 0].tolist() == wanted


def test_of_two_boxes_on_one_reference_one_is_false():
    truth = table([TRUE])
    predicted = table([[0, 0.5, 0, 0, 10, 10], [0, 0.9, 0, 0, 10, 10]])
    assert challenge_scores(predicted, truth, 1)[0] == 0.5  # TP 1, FP 1, FN 0
    assert detection_metrics(predicted, truth, ["a"], bootstrap=0)["ap"]["value"] == 1.0  # the second comes after it


def test_an_overlap_that_just_reaches_the_level_counts():
    truth, half = table([TRUE]), table([[0, 0.9, 0, 0, 10, 5]])
    assert challenge_scores(half, truth, 1)[0] == 3 / 8  # 0.40, 0.45, 0.50
    result = detection_metrics(half, truth, ["a"], bootstrap=0)
    assert (result["ap50"]["value"], result["ap"]["value"]) == (1.0, pytest.approx(0.1))


EMPTY = table([])


def test_empty_cases():
    some = table([[1, 0.5, 0, 0, 4, 4]])
    patients = ["a", "b", "c"]
    nothing = detection_metrics(EMPTY, EMPTY, patients, bootstrap=20)
    assert nothing["not_counted"] == 3 and np.isnan(nothing["challenge"]["value"]) and np.isnan(nothing["ap"]["value"])
    invented = detection_metrics(some, EMPTY, patients, bootstrap=20)
    assert invented["challenge"]["value"] == 0 and invented["not_counted"] == 2 and np.isnan(invented["ap"]["value"])
    missed = detection_metrics(EMPTY, some, patients, bootstrap=20)
    assert missed["challenge"]["value"] == missed["ap"]["value"] == missed["ap50"]["value"] == 0
    assert missed["not_counted"] == 2
    below = detection_metrics(some, some, patients, threshold=0.6, bootstrap=20)
    assert (below["handed_in"], below["challenge"]["value"], below["ap"]["value"]) == (0, 0, 1)


def test_boxes_in_an_image_without_reference_lower_the_precision_behind_them():
    truth = table([TRUE])
    first = table([[1, 0.9, 0, 0, 5, 5], [0, 0.8, 0, 0, 10, 10]])
    assert detection_metrics(first, truth, ["a", "b"], bootstrap=0)["ap"]["value"] == 0.5


def test_the_threshold_is_the_one_with_the_best_score():
    predicted, truth = random_case(5, images=40)

    def plain(candidate):
        kept = predicted.rows(predicted.score >= candidate)
        counted = [s for s in (plain_challenge(kept, truth, image) for image in range(40)) if s is not None]
        return sum(counted) / len(counted)

    candidates = [0.05, 0.35, 0.55, 0.75]
    threshold, score = challenge_threshold(predicted, truth, 40, candidates)
    assert threshold == max(candidates, key=plain) and score == pytest.approx(plain(threshold))
    assert challenge_threshold(predicted, truth, 40)[1] >= score


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("seed", [0, 1])
def test_each_resample_equals_the_figures_of_its_drawn_patients(seed):
    predicted, truth = random_case(seed + 40, images=16)
    predicted = Boxes(predicted.image, predicted.corners, predicted.score + np.arange(len(predicted)) * 1e-6)  # no ties
    patients = np.arange(16) // 2
    resamples = ours.PatientBootstrap(patients, 6, 0)
    order, right = ours.coco_matches(predicted, truth, 16)
    boxes = resamples.totals(np.bincount(truth.image, minlength=16))
    draws = ours._average_precision(
        resamples.counts, resamples.index[predicted.image[order]], right.T.copy(), boxes, ours.RECALLS
    )
    for counts, found in zip(resamples.counts, draws, strict=True):
        drawn = np.repeat(np.arange(16), counts[patients])

        def copies(table, drawn=drawn):
            rows = [np.flatnonzero(table.image == image) for image in drawn]
            return Boxes(
                np.repeat(np.arange(len(drawn)), [len(r) for r in rows]),
                table.corners[np.concatenate(rows)],
                table.score[np.concatenate(rows)],
            )

        wanted = [plain_ap(copies(predicted), copies(truth), len(drawn), t / 100) for t in range(50, 100, 5)]
        assert np.allclose(found, wanted, equal_nan=True)


def test_intervals_hold_the_value_and_widen_when_images_share_a_patient():
    predicted, truth = random_case(7, images=60)
    widths = []
    for patients in (np.arange(60), np.arange(60) // 6):
        result = detection_metrics(predicted, truth, patients, bootstrap=400)
        for figure in ("challenge", "ap", "ap50"):
            assert result[figure]["low"] < result[figure]["value"] < result[figure]["high"]
        widths.append(result["patients"])
    assert widths == [60, 10]
    again = detection_metrics(predicted, truth, patients, bootstrap=400)
    assert again == result


@pytest.mark.parametrize(
    ("predicted", "truth", "words"),
    [
        (table([[3, 0.5, 0, 0, 1, 1]]), EMPTY, "there are 2 images"),
        (table([[0, float("nan"), 0, 0, 1, 1]]), EMPTY, "none may be NaN"),
        (Boxes(np.zeros(1, int), np.zeros((1, 4))), EMPTY, "need scores"),
        (table([], dims=3), EMPTY, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(predicted, truth, words):
    with pytest.raises(ValueError, match=words):
        detection_metrics(predicted, truth, ["a", "b"], bootstrap=0)
    with pytest.raises(ValueError, match="do not fit"):
        Boxes(np.zeros(2, int), np.zeros((1, 4)))
