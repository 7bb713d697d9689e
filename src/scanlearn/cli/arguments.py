"""From what was typed to a verb with its options: parsers made from signatures and docstrings, errors of one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from scanlearn import __version__
from scanlearn.cli.catalog import catalog
from scanlearn.cli.data import discover, names, prepare
from scanlearn.cli.learning import embed, fewshot, finetune, import_weights, predict, pretrain, probe
from scanlearn.cli.showing import demo, doctor, explain, recipes, report, study
from scanlearn.cli.words import POSITIONAL, TAKES_SETTINGS
from scanlearn.errors import ScanlearnError, nearest

VERBS: tuple[Callable[..., None], ...] = (
    prepare,
    catalog,
    names,
    discover,
    pretrain,
    import_weights,
    probe,
    fewshot,
    embed,
    finetune,
    study,
    predict,
    explain,
    report,
    recipes,
    doctor,
    demo,
)

HELP = """Learn from scans nobody labelled: pre-train, probe, fine-tune and compare networks for medical images.

The way:  prepare -> pretrain -> probe -> finetune -> study -> predict -> report

  scanlearn demo                                                    see it work on a real brain
  scanlearn prepare scans/ --out stores/chest                       any folder, table or .npz of scans
  scanlearn catalog check stores/chest other/scans                  the same patients, files or pictures in two places?
  scanlearn pretrain stores/chest --recipe moco_v2_small --out runs/moco
  scanlearn discover stores/chest --out words                       places that recur, for Semantic Genesis
  scanlearn finetune stores/chest --task classify --target finding --labels 100 --init runs/moco --out runs/moco-100
  scanlearn finetune stores/chest --task classify --target finding --labels 100 --init none --out runs/scratch-100
  scanlearn study stores/chest --task classify --target finding --methods scratch moco_v2_small --labels 50 all --out studies/a
"""


def split_settings(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take recipe settings (``--optimizer.lr 0.1``, ``--steps=5``) out of the arguments; values are read as YAML."""
    import dataclasses

    import yaml

    from scanlearn.engine.recipe import Recipe

    reserved = {"seed", "init", "name"}
    fields = {f.name for f in dataclasses.fields(Recipe)} - reserved
    rest: list[str] = []
    settings: dict[str, Any] = {}
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        key, _, value = word[2:].partition("=")
        first = key.partition(".")[0]
        if not word.startswith("--") or (first not in fields and "." not in key):
            rest.append(word)
            continue
        if first not in fields:
            raise ScanlearnError(f"There is no setting --{key}{nearest(first, fields)}")
        if "=" not in word:
            if not waiting:
                raise ScanlearnError(f"--{key} needs a value.")
            value = waiting.pop(0)
        settings[key] = yaml.safe_load(value)
    return rest, settings


def gather_lists(verb: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """``--labels 50 100 all`` as ``--labels [50, 100, all]``, for options that take a list.

    And ``--window -160,240`` as ``--window=-160,240``: what begins like a negative number is no option.
    """
    import inspect
    import json
    import re

    parameters = inspect.signature(verb).parameters.items()
    kinds = {f"--{name.replace('_', '-')}": str(p.annotation) for name, p in parameters}
    gathered: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        gathered.append(word)
        if kinds.get(word, "").startswith("str") and waiting and re.match(r"-[\d.]", waiting[0]):
            gathered[-1] += f"={waiting.pop(0)}"
        if not kinds.get(word, "").startswith("list["):
            continue
        values = []
        while waiting and not waiting[0].startswith("--"):
            values.append(waiting.pop(0))
        if len(values) == 1 and values[0].startswith("["):
            gathered += values
        elif values:
            words = [json.dumps(v) if kinds[word].startswith("list[str]") else v for v in values]
            gathered.append(f"[{', '.join(words)}]")
    return gathered


def build_parser() -> Any:
    """The parser of all verbs, from their signatures and docstrings."""
    import inspect

    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Any = None) -> None:  # type: ignore[override]
            raise ScanlearnError(_plain_message(message, self))

    parser = Parser(prog="scanlearn", description=HELP, formatter_class=_raw_formatter())
    parser.add_argument("--version", action="version", version=f"scanlearn {__version__}")
    verbs = parser.add_subcommands(dest="verb", required=True, title="verbs", metavar="VERB")
    for verb in VERBS:
        text = (inspect.getdoc(verb) or "").split("\n\nArgs:")[0]
        sub = Parser(description=text)
        for name, parameter in inspect.signature(verb).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            _add_parameter(sub, verb, name, parameter)
        verbs.add_subcommand(_word(verb), sub, help=text.splitlines()[0])
    return parser


def _word(verb: Callable[..., None]) -> str:
    """The verb as it is typed."""
    return verb.__name__.replace("_", "-")


def _add_parameter(sub: Any, verb: Callable[..., None], name: str, parameter: Any) -> None:
    import typing

    option = "--" + name.replace("_", "-")
    kind, text = typing.get_type_hints(verb)[name], _help_of(verb, option[2:])
    if name in POSITIONAL.get(verb.__name__, ()):
        if kind == list[str]:
            sub.add_argument(name, help=text, nargs="+", type=str)
            return
        optional = {"nargs": "?", "default": None} if parameter.default is None else {}
        sub.add_argument(name, help=text, **({"type": kind} if not optional else {}), **optional)
    elif kind is bool:
        sub.add_argument(option, action="store_true", help=text)
    elif parameter.default is parameter.empty:
        sub.add_argument(option, type=kind, required=True, help=text)
    else:
        sub.add_argument(option, type=kind, default=parameter.default, help=text)


def _help_of(verb: Callable[..., None], name: str) -> str:
    import inspect

    for line in (inspect.getdoc(verb) or "").splitlines():
        if line.strip().startswith(f"{name}:"):
            return line.split(":", 1)[1].strip().replace("%", "%%")
    return ""


def _raw_formatter() -> Any:
    import argparse

    return argparse.RawDescriptionHelpFormatter


def _plain_message(message: str, parser: Any) -> str:
    """One sentence, with the nearest option for an unknown one."""
    import re

    unknown = re.search(r"[Uu]nrecognized arguments?: (--[\w.-]+)", message)
    if unknown:
        known = [o for action in parser._actions for o in action.option_strings if o.startswith("--")]
        return f"There is no option {unknown[1]}{nearest(unknown[1], known)}"
    verb = re.search(r"invalid choice: '?([\w-]+)'?", message)
    if verb and "VERB" in message:
        return f"There is no verb {verb[1]!r}{nearest(verb[1], map(_word, VERBS))}"
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        wanted = ", ".join(name.split(".")[-1] for name in missing[1].rstrip(".").split(", "))
        return f"Still needed: {wanted}; --help says what each is."
    first = " ".join(line.strip() for line in message.strip().splitlines())
    return first if first.endswith(".") else first + "."


def parse(arguments: Sequence[str]) -> tuple[Callable[..., None], dict[str, Any], dict[str, Any]]:
    """(verb, its options, settings of the recipe); unknown words are refused with the nearest known one."""
    arguments = list(arguments)
    settings: dict[str, Any] = {}
    named = next((v for v in VERBS if arguments and _word(v) == arguments[0]), None)
    if named is not None:
        rest = arguments[1:]
        if named.__name__ in TAKES_SETTINGS and not {"--help", "-h"} & set(rest):
            rest, settings = split_settings(rest)
        arguments = [arguments[0], *gather_lists(named, rest)]
    parsed = build_parser().parse_args(arguments)
    verb = next(v for v in VERBS if _word(v) == parsed.verb)
    return verb, vars(parsed[parsed.verb].clone()), settings
