"""`python -m tests.fuzz TARGET [ARGUMENT...]`: one target, guided by coverage where atheris is installed (then
libFuzzer's arguments, such as -max_total_time=60), else by random mutations: [iterations [seed]]. `--list`: the names.
"""

from __future__ import annotations

import sys

from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(TARGETS))
    elif len(sys.argv) > 1 and sys.argv[1] in TARGETS:
        TARGETS[sys.argv.pop(1)].main()
    else:
        sys.exit(f"{__doc__}Targets: {', '.join(TARGETS)}")
