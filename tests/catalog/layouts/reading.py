"""How the tests of layouts look at a catalogue."""

from scanlearn.catalog.table import Catalog


def rows(catalog: Catalog, root, *columns: str) -> set[tuple[str, ...]]:
    """(path below the root, cells of the columns) of every scan; masks below the root as well."""
    cells = [[cell.replace(f"{root}/", "") for cell in catalog.column(name)] for name in columns]
    paths = [of_scan[0].removeprefix(f"{root}/") for of_scan in catalog.column("paths")]
    return set(zip(paths, *cells, strict=True))
