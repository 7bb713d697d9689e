"""Detection: anchors, matching and losses against plain loops and MONAI's parts; what learns; one rank against two."""

import math

import numpy as np
import pytest
import torch
from builders import assert_encoder_and_head_learn_and_no_decoder, small_learner, two_steps_of_gradients, two_views
from monai.apps.detection.utils.anchor_utils import AnchorGenerator
from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher
from monai.apps.detection.utils.box_coder import BoxCoder
from monai.losses.focal_loss import sigmoid_focal_loss

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.networks.network import build_network
from scanlearn.networks.retina import RetinaNet, decode, encode
from scanlearn.objectives.detect import NOT_MATCHED, Detect, detection_losses, match, overlaps

SMALL = {"view": "query", "channels": 8, "anchor": 2.0, "extra": 0, "maps": 2}


def boxes_of(count, most=3, size=16, seed=0):
    """(count, most, 4), the last of each row without volume, one image without any."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand((count, most, 2), generator=generator) * size * 0.6
    boxes = torch.cat([low, low + 2 + torch.rand((count, most, 2), generator=generator) * size * 0.35], dim=-1)
    boxes[:, -1] = 0
    boxes[count // 2] = 0
    return boxes


def features_of(size, count=1, width=4):
    network = build_network({"encoder": {"name": "unet", "width": width}}, spatial_dims=2, in_channels=1)
    return network, network.eval().features(torch.rand(count, 1, size, size))


@pytest.mark.parametrize("name, strides", [("resnet18", [8, 16, 32, 64, 128]), ("unet", [2, 4, 8, 16, 32])])
def test_any_encoder_gives_logits_and_offsets_for_all_anchors(name, strides):
    network = build_network({"encoder": {"name": name, "width": 8}}, spatial_dims=2, in_channels=1)
    head = RetinaNet(network.encoder, channels=8)
    for side in (64, 50):  # also a size that no stride divides
        features = network.features(torch.rand(2, 1, side, side))
        logits, offsets = head(features)
        count = 3 * sum(head.places(features))
        assert head.strides == strides and len(head.places(features)) == 5
        assert logits.shape == (2, count) and offsets.shape == (2, count, 4)
        assert head.anchors(features).shape == (count, 4)


def test_anchors_are_those_of_monai():
    network, features = features_of(32)
    head = RetinaNet(network.encoder, channels=8, extra=0, ratios=(1.0, 4.0), scales=(1.0, 2.0), anchor=4.0)
    sizes = [(4.0 * s, 8.0 * s) for s in head.strides]
    monai = AnchorGenerator(sizes, ((1.0, 4.0),) * len(sizes))
    maps = features[-3:]
    theirs = monai(torch.zeros(1, 1, 32, 32), maps)[0].reshape(-1, 4, 4)
    ours = head.anchors(features).reshape(-1, 4, 4)[:, [0, 2, 1, 3]]  # theirs: all sizes of a ratio, one after another
    order = [0, 2, 1, 3]
    torch.testing.assert_close(ours[:, order][:, order], theirs[:, [0, 1, 2, 3]][:, order][:, order], atol=1e-4, rtol=0)


def test_a_new_head_is_unsure_of_everything():
    network, features = features_of(32, count=2)
    logits, offsets = RetinaNet(network.encoder, channels=8)(features)
    assert logits.sigmoid().mean().item() == pytest.approx(0.01, rel=0.2)  # the prior of the focal loss
    assert offsets.abs().max() < 1


def test_offsets_are_those_of_monai_and_lead_back():
    generator = torch.Generator().manual_seed(1)
    low = torch.rand((50, 2, 2), generator=generator) * 40
    boxes, anchors = torch.cat([low, low + 1 + torch.rand((50, 2, 2), generator=generator) * 30], dim=-1).unbind(1)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    offsets = encode(boxes, anchors)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, anchors))
    torch.testing.assert_close(decode(offsets, anchors), boxes)
    wild = offsets * 9
    torch.testing.assert_close(decode(wild, anchors), coder.decode_single(wild, anchors), rtol=1e-4, atol=1e-3)


def plain_match(boxes, anchors, places, shapes, candidates):
    """ATSS, algorithm 1, in loops over the boxes of one image; boxes and anchors float64."""
    best, matched = np.full(len(anchors), -1.0), np.full(len(anchors), NOT_MATCHED)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    for m, box in enumerate(boxes):
        if not (box[2:] > box[:2]).all():
            continue
        distance = np.sqrt(((centres - (box[:2] + box[2:]) / 2) ** 2).sum(1))
        looked_at, begin = [], 0
        for count in places:
            nearest = np.argsort(distance[begin * shapes : (begin + count) * shapes : shapes])[:candidates]
            looked_at += [int(begin + n) * shapes + k for n in nearest for k in range(shapes)]
            begin += count
        ious = []
        for a in looked_at:
            both = np.clip(np.minimum(box[2:], anchors[a, 2:]) - np.maximum(box[:2], anchors[a, :2]), 0, None).prod()
            ious.append(both / ((box[2:] - box[:2]).prod() + (anchors[a, 2:] - anchors[a, :2]).prod() - both))
        bar = np.mean(ious) + np.std(ious, ddof=1)
        for a, iou in zip(looked_at, ious, strict=True):
            inside = min((centres[a] - box[:2]).min(), (box[2:] - centres[a]).min()) > 0.01
            if iou >= bar and inside and iou > best[a]:
                best[a], matched[a] = iou, m
    return matched


@pytest.mark.parametrize("seed", range(6))
def test_matching_equals_the_plain_algorithm_and_monais(seed):
    network, features = features_of(64)
    # No extra levels: of one with fewer than 12 places MONAI looks at as many anchors as there are places, not at all.
    head = RetinaNet(network.encoder, channels=8, anchor=2.3, ratios=(0.51, 1.0, 1.93), extra=0)
    anchors, places = head.anchors(features), head.places(features)
    boxes = boxes_of(4, size=64, seed=seed)
    ours = match(boxes, anchors, places, 4)
    for image, found in zip(boxes, ours, strict=True):
        plain = plain_match(image.double().numpy(), anchors.double().numpy(), places, 3, 4)
        np.testing.assert_array_equal(found, plain)
        real = image[(image[:, 2:] > image[:, :2]).all(1)]
        if len(real):
            monai = ATSSMatcher(num_candidates=4, center_in_gt=True)
            theirs = monai(real, anchors, places, 3)[1]
            np.testing.assert_array_equal(found, theirs)
            assert (found >= 0).any()
        else:
            assert (found == NOT_MATCHED).all()


def test_overlap_of_boxes_known_by_heart():
    boxes = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 0, 0]]])
    anchors = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [4, 4, 8, 8], [0, 0, 4, 2]])
    expected = torch.tensor([[[1, 4 / 28, 0, 0.5], [0, 0, 0, 0]]])
    torch.testing.assert_close(overlaps(boxes, anchors), expected)


def plain_losses(logits, offsets, boxes, anchors, matched, alpha, gamma, beta):
    """The same sums in loops over images and anchors, float64."""
    focal, distance = [], []
    for i in range(len(logits)):
        positives = max(int((matched[i] >= 0).sum()), 1)
        of_image, of_boxes = 0.0, 0.0
        for a, (x, m) in enumerate(zip(logits[i], matched[i], strict=True)):
            p = 1 / (1 + math.exp(-x))
            right, share = (p, alpha) if m >= 0 else (1 - p, 1 - alpha)
            of_image -= share * (1 - right) ** gamma * math.log(right)
            if m < 0:
                continue
            box, anchor = boxes[i, m], anchors[a]
            side = anchor[2:] - anchor[:2]
            target = [*((box[:2] + box[2:]) / 2 - (anchor[:2] + anchor[2:]) / 2) / side]
            target += [*np.log((box[2:] - box[:2]) / side)]
            for t, o in zip(target, offsets[i, a], strict=True):
                d = abs(t - o)
                of_boxes += d * d / (2 * beta) if d < beta else d - beta / 2
        focal.append(of_image / positives)
        distance.append(of_boxes / positives)
    return np.mean(focal), np.mean(distance)


@pytest.mark.parametrize("alpha, gamma, beta", [(0.25, 2.0, 1 / 9), (0.6, 1.5, 1.0)])
def test_losses_equal_plain_sums_and_monais_focal_loss(alpha, gamma, beta):
    network, features = features_of(32)
    head = RetinaNet(network.encoder, channels=8, anchor=2.3)
    anchors = head.anchors(features)
    boxes = boxes_of(3, size=32)
    matched = match(boxes, anchors, head.places(features), 4)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn((3, len(anchors)), generator=generator, dtype=torch.float64)
    offsets = torch.randn((3, len(anchors), 4), generator=generator, dtype=torch.float64)
    rest = (boxes.double(), anchors.double(), matched)
    focal, distance = detection_losses(logits, offsets, *rest, alpha, gamma, beta)
    expected = plain_losses(logits.numpy(), offsets.numpy(), *(x.numpy() for x in rest), alpha, gamma, beta)
    assert (focal.item(), distance.item()) == pytest.approx(expected, rel=1e-9)
    theirs = sigmoid_focal_loss(logits, (matched >= 0).double(), gamma, alpha).sum(1)
    count = (matched >= 0).sum(1).clamp(min=1)
    assert focal.item() == pytest.approx((theirs / count).mean().item(), rel=1e-9)


def test_golden_losses_of_one_anchor():
    """By hand: alpha 1/4, p = 1/2, gamma 2: 0.25 * 0.25 * ln 2; a box half a side lower: 0.5 - beta / 2."""
    anchors, boxes = torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[[2.0, 0, 6, 4]]])
    matched = torch.tensor([[0]])
    found = detection_losses(torch.zeros(1, 1), torch.zeros(1, 1, 4), boxes, anchors, matched, 0.25, 2.0, 0.1)
    assert [x.item() for x in found] == pytest.approx([0.0625 * math.log(2), 0.45])
    none = detection_losses(torch.zeros(1, 1), torch.zeros(1, 1, 4), boxes * 0, anchors, matched - 1, 0.25, 2.0, 0.1)
    assert [x.item() for x in none] == pytest.approx([0.75 * 0.25 * math.log(2), 0])


def test_the_encoder_and_the_head_learn_and_no_decoder_does():
    learner = small_learner({"detect": SMALL}, decoder={"name": "unet"})
    views = two_views(4)
    views["boxes"] = boxes_of(4)
    loss, parts = learner(views, {"step": 0}, {"detect": 1.0})
    assert torch.isfinite(loss) and 0 < parts["boxes_matched"] <= 1
    assert parts["detect"].item() == pytest.approx((parts["focal"] + parts["box_distance"]).item(), rel=1e-6)
    assert_encoder_and_head_learn_and_no_decoder(learner, loss, parts["detect"])


def test_a_batch_without_any_box_has_a_loss_and_gradients_that_are_numbers():
    learner = small_learner({"detect": SMALL})
    views = {**two_views(2), "boxes": torch.zeros(2, 1, 4)}
    loss, parts = learner(views, {"step": 0}, {"detect": 1.0})
    loss.backward()
    assert parts["box_distance"] == 0 and all(p.grad.isfinite().all() for p in learner.parameters())


def steps_with_boxes(world_size, batch_norm):
    objective = {"detect": {**SMALL, "boxes": "query.boxes"}}
    return two_steps_of_gradients(objective, world_size, batch_norm, **{"query.boxes": boxes_of(8)})


def test_two_ranks_give_the_loss_and_gradients_of_one_process(tmp_path):
    alone = steps_with_boxes(1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, steps_with_boxes, 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"channels": 12}, "multiple of 8, not 12"),
        ({"extra": 1}, "extra 0 or 2"),
        ({"ratios": []}, "none of them empty"),
        ({"candidates": 0}, "candidates of 1 or more"),
    ],
)
def test_settings_that_make_no_detector_are_refused(settings, words):
    network = build_network({"encoder": {"name": "unet", "width": 2}}, spatial_dims=2, in_channels=1)
    with pytest.raises(ScanlearnError, match=words):
        Detect(network, **settings)


def test_volumes_are_refused():
    network = build_network({"encoder": {"name": "unet", "width": 2}}, spatial_dims=3, in_channels=1)
    with pytest.raises(ScanlearnError, match="2D images; the encoder 'unet' is 3D"):
        Detect(network)
