"""What tests have to know of the package greenlet."""

from __future__ import annotations

import sys
import sysconfig

import pytest

#: greenlet 3.2.2, the newest that there is for a free-threaded 3.13, ends the process there, also without
#: proact: 50 plain greenlets that switch within a generator are enough.
crashes_on_313t = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14),
    reason="greenlet 3.2.2 crashes on 3.13t: switches within generators, or within C that calls back",
)
