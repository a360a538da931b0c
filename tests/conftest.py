"""What all tests share: no deadline per example, because machines are busy and the first call of a library is slow; no index of records
in the user's own cache folder."""

import os

from faults.ledger import pytest_terminal_summary  # noqa: F401  (how many faults were injected)
from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
os.environ["NOCOBENCH_CACHE"] = "off"  # tests of the index name a folder of their own
