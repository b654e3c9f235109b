"""Builds the optional accelerator, core/native/, where cargo is, and puts it into wheels and editable installs.

``POSTSEAL_NATIVE=0`` leaves it out: the wheel is then pure Python, as it is where there is no cargo. ``POSTSEAL_NATIVE=1`` demands it.

Source: docs/accelerator.md; hatchling, custom build hooks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CRATE = Path("core", "native")
PLACE = Path("core", "postseal", "core")
BUILT = {"linux": "lib_native.so", "darwin": "lib_native.dylib", "win32": "_native.dll"}


class AcceleratorHook(BuildHookInterface[Any]):
    """Runs cargo before what is built is packed."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build; where that fails, say so, and go on without unless it is demanded."""
        wanted = os.environ.get("POSTSEAL_NATIVE", "")
        if wanted == "0":
            return
        try:
            library = self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            if wanted == "1":
                raise
            self.app.display_warning(f"postseal without its accelerator, which only makes it faster: {error}")
            return
        name = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
        if version == "editable":
            # Not written over: another process may have it loaded.
            fresh = Path(self.root, PLACE, f".{name}")
            shutil.copyfile(library, fresh)
            fresh.replace(Path(self.root, PLACE, name))
        else:
            build_data["force_include"][str(library)] = f"postseal/core/{name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def _build(self) -> Path:
        """Return the library."""
        crate = Path(self.root, CRATE)
        # Not a build environment's own Python: its path is another each time, and everything would be compiled again.
        python = getattr(sys, "_base_executable", sys.executable)
        target = Path(os.environ.get("CARGO_TARGET_DIR") or crate / "target") / str(
            sys.implementation.cache_tag
        )
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", str(target)],
            cwd=crate,
            env=os.environ | {"PYO3_PYTHON": python},
            check=True,
        )
        return target.absolute() / "release" / BUILT.get(sys.platform, BUILT["linux"])
