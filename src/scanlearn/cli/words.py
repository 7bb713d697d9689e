"""Which options stand without their names, and which verbs take settings of a recipe."""

TAKES_SETTINGS = ("pretrain", "finetune", "study")
POSITIONAL: dict[str, tuple[str, ...]] = {
    "prepare": ("source",),
    "catalog": ("what", "sources"),
    "names": ("store",),
    "discover": ("store",),
    "pretrain": ("store",),
    "import_weights": ("file",),
    "probe": ("run", "store"),
    "fewshot": ("run", "store"),
    "embed": ("run", "store"),
    "finetune": ("store",),
    "study": ("source",),
    "predict": ("run", "input"),
    "explain": ("run", "store"),
    "report": ("run",),
    "recipes": ("name",),
}
