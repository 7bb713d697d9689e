"""The head of a fine-tuned run on disk: one linear layer, or two with ReLU between them."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from runs import image_store

from scanlearn.engine.embedding import embed_scans
from scanlearn.errors import ScanlearnError
from scanlearn.scans.store import open_store
from scanlearn.tasks.finetune import finetune
from scanlearn.tasks.trained import leads_to, load_trained, probabilities

SETTINGS = {
    "steps": 3,
    "batch_size": 8,
    "precision": "32-true",
    "network.encoder": {"name": "unet", "width": 2},
    "size": [16, 16],
    "objectives.classify.hidden": 7,
}


def layer(name, outputs, inputs):
    return {f"head.{name}.weight": torch.zeros(outputs, inputs), f"head.{name}.bias": torch.zeros(outputs)}


def test_only_heads_that_lead_from_the_features_to_the_classes_are_taken():
    assert leads_to(layer(1, 3, 16), 16, 3) and leads_to({**layer(1, 7, 16), **layer(3, 3, 7)}, 16, 3)
    one, two = layer(1, 3, 16), {**layer(1, 7, 16), **layer(3, 3, 7)}
    refused = [
        {},
        layer(3, 3, 16),
        {**one, "head.5.weight": torch.zeros(3)},
        {**layer(1, 7, 16), **layer(3, 3, 8)},
        {**two, "head.3.bias": torch.zeros(2)},
        {**one, "head.1.weight": torch.zeros(3, 16, 1)},
        {name: value for name, value in two.items() if name != "head.3.bias"},
    ]
    assert not any(leads_to(head, 16, 3) for head in refused)
    assert not leads_to(one, 15, 3) and not leads_to(two, 16, 7)


def test_a_head_with_a_hidden_layer_gives_the_tested_scores_when_it_is_loaded(tmp_path):
    store = image_store(tmp_path, count=30)
    finetune(store, "classify", out=tmp_path / "run", target="label", settings=SETTINGS)
    trained = load_trained(tmp_path / "run")
    assert trained.head["head.1.weight"].shape[0] == 7
    table = pq.read_table(tmp_path / "run" / "predictions.parquet").to_pydict()
    rows = np.array(table["row"])
    features = embed_scans(trained.network.pooled, open_store(tmp_path / "store"), rows, size=(16, 16))
    scores = probabilities(trained.class_logits(torch.from_numpy(features)), multilabel=False)
    np.testing.assert_allclose(scores[:, 1].numpy(), table["score_1"], atol=1e-5)
    facts = json.loads((tmp_path / "run" / "encoder" / "task.json").read_text())
    (tmp_path / "run" / "encoder" / "task.json").write_text(json.dumps({**facts, "classes": ["a", "b", "c"]}))
    with pytest.raises(ScanlearnError, match="does not fit its network and classes"):
        load_trained(tmp_path / "run")
