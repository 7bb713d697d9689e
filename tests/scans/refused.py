"""What readers say of files that they refuse."""

import pytest

from scanlearn.errors import FileError
from scanlearn.scans.read import read_header, read_scan


def reasons_of(path, **options):
    """The reasons for which header and scan are refused, both; neither names the place."""
    reasons = []
    for reader in (read_header, read_scan):
        with pytest.raises(FileError) as caught:
            reader(path, **options)
        assert str(path.parent) not in caught.value.reason
        reasons.append(caught.value.reason)
    return reasons


def reason(path, **options):
    """The reason for which the scan is refused; its header is refused, too."""
    return reasons_of(path, **options)[1]
