import subprocess
import sys

import pytest
from runs import image_store

from scanlearn.cli import main
from scanlearn.cli.arguments import VERBS, parse, split_settings
from scanlearn.engine.recipe import load_recipe
from scanlearn.errors import ScanlearnError


def said(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, capsys.readouterr().err


@pytest.mark.parametrize("code", ["import scanlearn", "from scanlearn.cli import main; main(['--help'])"])
def test_importing_and_asking_for_help_load_neither_torch_nor_monai(code):
    check = "; import sys; assert not {'torch', 'monai', 'lightning_fabric'} & set(sys.modules)"
    code = f"try:\n    exec({code!r})\nexcept SystemExit:\n    pass\nexec({check[2:]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_verb_teaches_its_options(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit):
            main([verb.__name__.replace("_", "-"), "--help"])
        shown = capsys.readouterr().out
        assert verb.__doc__.splitlines()[0].split(".")[0][:40] in " ".join(shown.split()), verb.__name__


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["pretrin"], "no verb 'pretrin'; did you mean 'pretrain'?"),
        (["pretrain", "s", "--recipe", "moco_v2", "--out", "r", "--sed", "1"], "did you mean '--seed'?"),
        (["pretrain", "s", "--recipe", "moco_v2", "--out", "r", "--optimiser.lr", "1"], "did you mean 'optimizer'?"),
        (["pretrain", "s"], "Still needed: recipe, out"),
        (["pretrain", "nowhere", "--recipe", "moco_v2", "--out", "r"], "nowhere is no prepared store"),
        (["recipes", "moco_v3"], "did you mean 'moco_v"),
        (["finetune", "s", "--task", "clasify", "--init", "none", "--out", "r"], "clasify"),
        (
            ["finetune", "s", "--task", "classify", "--init", "none", "--out", "r", "--labels", "many"],
            "number of labelled",
        ),
        (["prepare", "nowhere", "--out", "s"], "nowhere"),
    ],
)
def test_errors_are_one_sentence_that_says_what_to_do(capsys, arguments, sentence):
    status, err = said(capsys, *arguments)
    assert status == 2 and sentence in err and "Traceback" not in err


def test_settings_of_the_recipe_are_options_read_as_yaml():
    rest, settings = split_settings(
        ["store", "--recipe", "x", "--optimizer.lr", "0.5", "--steps=7", "--size", "[32, 32]", "--out", "r"]
    )
    assert rest == ["store", "--recipe", "x", "--out", "r"]
    assert settings == {"optimizer.lr": 0.5, "steps": 7, "size": [32, 32]}


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ({"optimizer.learning_rate": 1}, "no setting optimizer.learning_rate"),
        ({"optimizer.lr": "fast"}, "optimizer.lr must be a number"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"objectives.momentum_contast.temperature": 0.1}, "did you mean 'momentum_contrast'?"),
    ],
)
def test_wrong_settings_are_refused_by_name(setting, sentence):
    with pytest.raises(ScanlearnError, match=sentence.replace("?", r"\?")):
        load_recipe("moco_v2_small", setting)


def test_the_whole_path_from_files_to_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_store(tmp_path, count=60)  # writes images.npz; its own store is not used here
    small = ["--network.encoder", "{name: unet, width: 2}", "--network.batch_norm", "local", "--precision", "32-true"]
    status, err = said(capsys, "prepare", "images.npz", "--out", "made", "--target", "label")
    assert status == 0 and "Next:  scanlearn pretrain made --recipe moco_v2_small" in err
    views = "{query: {ops: [{random_resized_crop: {size: 16}}]}, key: {like: query}}"
    steps = ["--steps", "4", "--batch_size", "8", "--objectives.momentum_contrast.queue_size", "16", "--views", views]
    status, err = said(capsys, "pretrain", "made", "--recipe", "moco_v2_small", "--out", "run", *steps, *small)
    assert status == 0 and "Next:  scanlearn finetune made" in err and (tmp_path / "run" / "report.html").is_file()
    assert said(capsys, "probe", "run", "made", "--target", "label")[0] == 0
    assert said(capsys, "embed", "run", "made", "--out", "features.npz")[0] == 0
    fine = ["--target", "label", "--labels", "20", "--steps", "4", "--batch_size", "8", "--precision", "32-true"]
    status, err = said(capsys, "finetune", "made", "--task", "classify", "--init", "run", "--out", "tuned", *fine)
    assert status == 0 and "auroc" in err and "--init none --like run" in err
    assert said(capsys, "report", "tuned", "--store", "made")[0] == 0


def test_recipes_are_listed_and_printed_with_their_command(capsys):
    assert main(["recipes"]) == 0
    assert "moco_v2_small" in capsys.readouterr().out
    assert main(["recipes", "models_genesis_3d"]) == 0
    shown = capsys.readouterr()
    assert "local_shuffle" in shown.out
    assert "Next:  scanlearn pretrain STORE --recipe models_genesis_3d" in shown.err


def test_a_reader_that_has_enough_ends_it_quietly():
    command = f"{sys.executable} -m scanlearn.cli recipes | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_lists_of_words_are_gathered_for_options_of_two_words_too():
    asked = ["finetune", "S", "--task", "classify", "--init", "none", "--out", "o"]
    for words in (["chexpert_tasks"], ["Edema", "Mass"]):
        assert parse([*asked, "--mean-over", *words, "--crops", "10"])[1]["mean_over"] == words
    assert parse([*asked, "--uncertain", "{Edema: ones}"])[1]["uncertain"] == "{Edema: ones}"


@pytest.mark.parametrize("window", ["-1000,400", ".5,2", "lung"])
def test_a_window_may_begin_with_a_minus(window):
    verb, given = parse(["prepare", "scans", "--window", window, "--out", "store"])[:2]
    assert (verb.__name__, given["window"], given["out"]) == ("prepare", window, "store")
