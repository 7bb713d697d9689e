import copy
import math

import pytest
import torch
import torch.nn.functional as F
from builders import small_learner, step_of, two_steps_of_gradients, two_views

from ranks import on_ranks
from scanlearn.errors import ScanlearnError
from scanlearn.objectives.mixed_contrast import PARTNERS, TERMS, folded, mix, nce
from scanlearn.objectives.momentum_keys import contrast_logits, first_is_right

SETTINGS = {"queue_size": 32, "dim": 8, "temperature": 0.2, "momentum": 0.9}


def mixed(**settings):
    return {"mixed_contrast": {**SETTINGS, **settings}}


def learner_of(scans=40, spatial_dims=2, **settings):
    learner = small_learner(mixed(**settings), spatial_dims=spatial_dims)
    learner.objectives["mixed_contrast"].scans = scans
    return learner, learner.objectives["mixed_contrast"]


def run(learner, views, number=0):
    return learner(views, {"step": number}, {"mixed_contrast": 1.0})


# ---------------------------------------------------------------- equations


@pytest.mark.parametrize("queue", [5, 16384])
def test_equal_logits_cost_ln_k_plus_one_in_info_nce_and_the_golden_value_in_nce(queue):
    # spec_c2l §6: 9.704121 and 10.704091 for K = 16,384; with eps = 0 and Z = n u.
    logits, scans = torch.full((3, queue + 1), 1.7), 1000
    normaliser = logits.double().exp().mean()[None] * scans
    assert first_is_right(logits).item() == pytest.approx(math.log(queue + 1), abs=1e-5)
    golden = math.log(queue + 1) + queue * math.log((queue + 1) / queue)
    assert nce(logits.double(), normaliser, scans, eps=0.0).item() == pytest.approx(golden, abs=1e-9)
    assert nce(logits, normaliser.float(), scans, eps=0.0).item() == pytest.approx(golden, abs=2e-4)
    if queue == 16384:
        assert math.log(queue + 1) == pytest.approx(9.704121, abs=1e-6)
        assert golden == pytest.approx(10.704091, abs=1e-6)


def plain_info_nce(logits, normaliser, scans):
    return sum(-math.log(math.exp(row[0]) / sum(map(math.exp, row))) for row in logits) / len(logits)


def plain_nce(logits, normaliser, scans, eps=1e-7):
    total, noise = 0.0, (len(logits[0]) - 1) / scans
    for row in logits:
        chances = [math.exp(value) / normaliser for value in row]
        total += math.log(chances[0] / (chances[0] + noise + eps))
        total += sum(math.log(noise / (chance + noise + eps)) for chance in chances[1:])
    return -total / len(logits)


@pytest.mark.parametrize("eps", [0.0, 1e-7, 1e-2])
def test_nce_equals_the_plain_loop(eps):
    logits = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    ours = nce(logits, torch.tensor([700.0], dtype=torch.float64), 300, eps).item()
    assert ours == pytest.approx(plain_nce(logits.tolist(), 700.0, 300, eps), rel=1e-12)


def test_lambda_is_folded_so_that_the_image_itself_outweighs_its_partner():
    assert [folded(u) for u in (0.0, 0.25, 0.5, 0.75)] == [1.0, 0.75, 0.5, 0.75]


def test_lambda_is_uniform_over_steps_on_its_half_and_the_same_when_asked_again():
    learner, _ = learner_of()
    views = two_views(2)
    shares = torch.tensor([folded(step_of(learner, views, number).uniform()) for number in range(1000)])
    again = torch.tensor([folded(step_of(learner, views, number).uniform()) for number in range(50)])
    assert torch.equal(shares[:50], again)
    assert shares.min() >= 0.5 and shares.max() <= 1.0
    assert abs(shares.mean() - 0.75) < 0.02 and abs(shares.std() - 0.5 / math.sqrt(12)) < 0.01


# ---------------------------------------------------------------- one step against the published pseudo-code


def embed(encoder, head, images):
    return head(encoder(images)[-1].flatten(2).mean(2))


def unit(x):
    return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in x]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def published_loss(learner, views, number, terms, order, criterion, scans):
    """The loss of one step by loops over rows in float64, and the queue and pointer after it (spec_c2l §5, §6)."""
    objective = learner.objectives["mixed_contrast"]
    student = copy.deepcopy(torch.nn.ModuleList([learner.network.encoder, objective.projector])).double()
    teacher = copy.deepcopy(torch.nn.ModuleList([objective.key_encoder, objective.key_projector])).double()
    step = step_of(learner, views, number)
    share, partner = folded(step.uniform()), step.permutation(8, PARTNERS).tolist()
    v1, v2 = views["query"].double(), views["key"].double()
    m1 = torch.stack([share * v1[i] + (1 - share) * v1[partner[i]] for i in range(8)])
    m2 = torch.stack([share * v2[i] + (1 - share) * v2[partner[i]] for i in range(8)])
    with torch.no_grad():
        zs, zt = embed(*student, v1).tolist(), embed(*teacher, v2).tolist()
        ms, mt = embed(*student, m1).tolist(), embed(*teacher, m2).tolist()
    gt = [[share * a + (1 - share) * b for a, b in zip(zt[i], zt[partner[i]], strict=True)] for i in range(8)]
    blocks = {"plain": (zs, zt), "mixed_images": (ms, mt), "mixed_features": (ms, gt)}
    queue, place = objective.queue.T.double().tolist(), 0  # row by row, as there
    seen, normaliser, losses = [list(row) for row in queue], None, []
    for term in TERMS:
        if term not in terms:
            continue
        queries, keys = unit(blocks[term][0]), unit(blocks[term][1])
        negatives = queue if order == "authors" else seen
        logits = [
            [v / objective.temperature for v in (dot(q, k), *(dot(q, n) for n in negatives))]
            for q, k in zip(queries, keys, strict=True)
        ]
        if normaliser is None:
            normaliser = sum(math.exp(v) for row in logits for v in row) / (8 * 33) * scans
        losses.append({"info_nce": plain_info_nce, "nce": plain_nce}[criterion](logits, normaliser, scans))
        for key in keys:
            queue[place % 32] = key
            place += 1
    return sum(losses) / len(losses), torch.tensor(queue).T, place % 32


ABLATIONS = [
    ["plain"],
    ["mixed_images"],
    ["mixed_features"],
    ["plain", "mixed_images"],
    ["plain", "mixed_features"],
    ["mixed_images", "mixed_features"],
    list(TERMS),
]


@pytest.mark.parametrize("criterion", ["info_nce", "nce"])
@pytest.mark.parametrize("order", ["after", "authors"])
@pytest.mark.parametrize("terms", ABLATIONS, ids="+".join)
def test_a_step_equals_the_published_one_by_plain_loops(terms, order, criterion):
    learner, objective = learner_of(terms=terms, enqueue=order, criterion=criterion)
    views = two_views(8)
    wanted, queue, pointer = published_loss(learner, views, 3, terms, order, criterion, scans=40)
    loss, parts = run(learner, views, 3)
    assert loss.item() == pytest.approx(wanted, abs=2e-5)
    torch.testing.assert_close(objective.queue, queue.float(), atol=2e-5, rtol=0)
    assert objective.pointer.item() == pointer == 8 * len(terms) % 32
    named = {f"{term}_accuracy" for term in objective.terms[1:]}
    assert set(parts) == {"mixed_contrast", "contrast_accuracy", *named}


def test_a_step_in_3d_equals_the_published_one():
    learner, _ = learner_of(spatial_dims=3)
    views = two_views(8, size=16, spatial_dims=3)
    wanted, _, _ = published_loss(learner, views, 0, TERMS, "after", "info_nce", scans=40)
    assert run(learner, views)[0].item() == pytest.approx(wanted, abs=2e-5)


def test_later_terms_meet_the_keys_of_this_batch_only_in_the_mode_of_the_authors():
    losses, queues = {}, {}
    for order in ("after", "authors"):
        learner, objective = learner_of(enqueue=order)
        losses[order], queues[order] = run(learner, two_views(8))[0].item(), objective.queue
    assert torch.equal(queues["after"], queues["authors"])
    assert abs(losses["after"] - losses["authors"]) > 1e-3


def test_the_plain_term_alone_is_momentum_contrast():
    learner, objective = learner_of(terms=["plain"])
    moco = small_learner({"momentum_contrast": {**SETTINGS, "head": "linear"}})
    moco.network.load_state_dict(learner.network.state_dict())
    moco.objectives["momentum_contrast"].load_state_dict(objective.state_dict())
    ours, theirs = run(learner, two_views(8))[0], moco(two_views(8), {"step": 0}, {"momentum_contrast": 1.0})[0]
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(objective.queue, moco.objectives["momentum_contrast"].queue)


# ---------------------------------------------------------------- mixing


def pairs_with(share, partners, monkeypatch):
    learner, objective = learner_of()
    step = step_of(learner, two_views(4))
    monkeypatch.setattr(step, "uniform", lambda: share)
    monkeypatch.setattr(step, "permutation", lambda count, salt=0: torch.tensor(partners if salt else range(count)))
    return objective.pairs(step)


def test_with_lambda_one_the_three_terms_are_the_same(monkeypatch):
    pairs = pairs_with(1.0, [1, 2, 3, 0], monkeypatch)
    for term in ("mixed_images", "mixed_features"):
        for ours, plain in zip(pairs[term], pairs["plain"], strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-6, rtol=0)


def test_with_lambda_a_half_swapped_scans_have_the_same_query_and_keys(monkeypatch):
    pairs = pairs_with(0.5, [1, 0, 3, 2], monkeypatch)
    for term in ("mixed_images", "mixed_features"):
        for rows in pairs[term]:  # the same lambda and partners for both views and for the features
            torch.testing.assert_close(rows[0::2], rows[1::2], atol=1e-6, rtol=0)
            assert (rows[0] - rows[2]).abs().max() > 1e-3


def test_features_of_the_unmixed_keys_are_mixed_before_they_get_unit_length(monkeypatch):
    learner, objective = learner_of()
    step = step_of(learner, two_views(8), 5)
    raw = []
    encode = objective.encode_keys
    monkeypatch.setattr(objective, "encode_keys", lambda *a: raw.append(encode(*a)) or raw[-1])
    keys = objective.pairs(step)["mixed_features"][1]
    share, partners = folded(step.uniform()), step.permutation(8, PARTNERS)
    torch.testing.assert_close(keys, F.normalize(mix(raw[0], raw[0][partners], share), dim=1))
    after = F.normalize(mix(F.normalize(raw[0], dim=1), F.normalize(raw[0], dim=1)[partners], share), dim=1)
    assert (keys - after).abs().max() > 1e-5
    assert len(raw) == 2  # two passes of the key network


@pytest.mark.parametrize(
    ("terms", "queries", "keys"),
    [(["plain"], 1, 1), (["mixed_images"], 1, 1), (["mixed_features"], 1, 1), (TERMS, 2, 2)],
)
def test_a_term_that_is_left_out_costs_no_forward_pass(terms, queries, keys):
    learner, objective = learner_of(terms=list(terms))
    calls = []
    learner.network.encoder.register_forward_hook(lambda *_: calls.append("query"))
    objective.key_encoder.register_forward_hook(lambda *_: calls.append("key"))
    run(learner, two_views(4))
    assert (calls.count("query"), calls.count("key")) == (queries, keys)


# ---------------------------------------------------------------- what trains, and what does not


@pytest.mark.parametrize("order", ["after", "authors"])
@pytest.mark.parametrize("criterion", ["info_nce", "nce"])
def test_gradient_reaches_query_encoder_and_projector_and_nothing_else(order, criterion):
    learner, objective = learner_of(enqueue=order, criterion=criterion)
    loss, _ = run(learner, two_views(8))
    loss.backward()
    for name, p in learner.named_parameters():
        if "key_" in name:
            assert p.grad is None and not p.requires_grad, name
        else:
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
    moved = [n for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(n.startswith("network.encoder") for n in moved) and any("projector.weight" in n for n in moved)
    assert not objective.queue.requires_grad and not any(b.requires_grad for b in objective.buffers())


def test_the_key_network_follows_parameters_and_keeps_its_own_statistics():
    learner, objective = learner_of()
    encoder, key = learner.network.encoder, objective.key_encoder
    before = copy.deepcopy(key)
    statistics = [b for b in key.buffers() if b.is_floating_point()]
    old = [b.clone() for b in statistics]
    run(learner, two_views(8))
    assert all(not torch.equal(a, b) for a, b in zip(statistics, old, strict=True))  # of its own batches
    assert {int(b) for n, b in key.named_buffers() if "tracked" in n} == {2}  # a clean batch and a mixed one
    old = [b.clone() for b in statistics]
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1.0)
    objective.after_update()
    for new, was, query in zip(key.parameters(), before.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(new, 0.9 * was + 0.1 * query)
    assert all(torch.equal(a, b) for a, b in zip(statistics, old, strict=True))


@pytest.mark.parametrize("order", ["after", "authors"])
@pytest.mark.parametrize("criterion", ["info_nce", "nce"])
def test_evaluation_changes_nothing(order, criterion):
    learner, _ = learner_of(enqueue=order, criterion=criterion)
    learner.eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with torch.no_grad():
        loss, _ = run(learner, two_views(8))
    assert torch.isfinite(loss)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_the_normaliser_is_measured_once_in_float_and_saved():
    learner, objective = learner_of(criterion="nce", terms=["plain"])
    assert objective.normaliser.item() == -1
    views = two_views(8)
    queue = objective.queue.clone()
    query, keys = copy.deepcopy(objective).pairs(step_of(copy.deepcopy(learner), views))["plain"]
    run(learner, views)
    measured = objective.normaliser.clone()
    wanted = contrast_logits(query, keys, queue, 0.2).exp().mean() * 40
    torch.testing.assert_close(measured[0], wanted, atol=0, rtol=1e-4)
    assert measured != measured.trunc()  # the released code cuts it to an integer
    run(learner, two_views(8, seed=1), 1)
    assert torch.equal(objective.normaliser, measured)
    assert torch.equal(objective.state_dict()["normaliser"], measured)


def test_the_normaliser_counts_training_scans():
    objective = small_learner(mixed(criterion="nce")).objectives["mixed_contrast"]
    objective.start(scans=123, batch_size=8)
    assert objective.scans == 123
    objective.scans = None
    with pytest.raises(ValueError, match="call start"):
        objective.contrast(torch.zeros(2, 3))


@pytest.mark.parametrize("order", ["after", "authors"])
def test_the_queue_wraps_inside_a_push(order):
    learner, objective = learner_of(enqueue=order, queue_size=20)
    for number in range(3):
        before = objective.queue.clone()
        run(learner, two_views(8, seed=number), number)
        assert objective.pointer.item() == (number + 1) * 24 % 20
        assert not (objective.queue == before).all(dim=0).any()  # 24 keys went over all 20 places
    torch.testing.assert_close(objective.queue.norm(dim=0), torch.ones(20))


@pytest.mark.parametrize("settings", [{}, {"enqueue": "authors"}, {"criterion": "nce"}], ids=str)
def test_two_ranks_give_the_loss_gradients_and_queue_of_one_process(tmp_path, settings):
    # Two ranks of local batch norm see what one process with two groups of split batch norm sees.
    alone = two_steps_of_gradients(mixed(**settings), 1, {"batch_norm": "split", "batch_norm_groups": 2})
    for rank in on_ranks(tmp_path, two_steps_of_gradients, mixed(**settings), 2, {"batch_norm": "local"}):
        for ours, theirs in zip(alone, rank, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_split_batch_norm_gives_keys_other_companions_at_each_step():
    learner = small_learner(mixed(), batch_norm="split", batch_norm_groups=4)
    objective, views = learner.objectives["mixed_contrast"], two_views(8)
    first, second = (objective.pairs(step_of(learner, views, number))["plain"][1] for number in (0, 1))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"terms": []}, "a list of different terms"),
        ({"terms": "plain"}, "a list of different terms"),
        ({"terms": ["plain", "plain"]}, "a list of different terms"),
        ({"terms": ["plane"]}, "did you mean 'plain'"),
        ({"enqueue": "afer"}, "did you mean 'after'"),
        ({"criterion": "infonce"}, "did you mean 'info_nce'"),
        ({"temperature": 0.0}, "mixed_contrast needs a temperature above 0"),
        ({"head": "mpl"}, "no head 'mpl'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, said):
    with pytest.raises(ScanlearnError, match=said):
        small_learner(mixed(**settings))


def test_a_queue_longer_than_the_data_is_said_with_the_setting_to_change(capsys):
    small_learner(mixed()).objectives["mixed_contrast"].start(scans=10, batch_size=4)
    assert "--objectives.mixed_contrast.queue_size 2" in capsys.readouterr().err
