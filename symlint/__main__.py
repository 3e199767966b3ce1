"""``python -m symlint``."""

import sys

from symlint.runtime import child_process

# ``-m`` imports from the folder that it runs in, where a model may lie beside a script called like a module.
sys.path[:] = child_process.import_path()

from symlint.cli.main import main  # noqa: E402

main()
