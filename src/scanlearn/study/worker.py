"""A process of a study that runs side by side with others: ``python -m scanlearn.study.worker FOLDER``."""

import sys
from pathlib import Path

from scanlearn.console import warn
from scanlearn.errors import ScanlearnError
from scanlearn.study.work import work

if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]))
    except ScanlearnError as error:
        warn(str(error))
        sys.exit(3)
