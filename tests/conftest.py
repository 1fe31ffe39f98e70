"""Every annotated public function of the package is checked against its jaxtyping shapes while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("ssl_ebm", "beartype.beartype")
