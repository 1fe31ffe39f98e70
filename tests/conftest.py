"""Every annotated function of the package is checked against its jaxtyping shapes while the tests run.

That doubles their time, so `make test` leaves it out (CHECK_SHAPES=0); `make test-all`, CI and a bare `pytest` check.
"""

import os

from jaxtyping import install_import_hook

if os.environ.get("CHECK_SHAPES", "1") != "0":
    install_import_hook("ssl_ebm", "beartype.beartype")
