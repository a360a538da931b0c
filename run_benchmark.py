"""NoCoBench command line: run a grid of cells, then make tables, figures and tests of significance from their records."""

from __future__ import annotations

import sys
import types
from pathlib import Path

# The five folders import as nocobench.*; the bare names (above all ``datasets``) stay free for other packages.
ROOT = Path(__file__).resolve().parent
if (ROOT / "protocols" / "specs").is_dir():
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    sys.modules.setdefault("nocobench", types.ModuleType("nocobench")).__path__ = [str(ROOT)]


def main() -> int:
    return 0


if __name__ == "__main__":
    sys.exit(main())
