"""What answers: a run, an untrained model, a server's address, or a folder that stands for one."""

import json
from pathlib import Path

from abstain.answer import Answering
from abstain.endpoint import Endpoint
from abstain.run import ENDPOINT, FILE, RunFile, read_run_file
from curate.chat import SECONDS, without_password
from curate.contract import Contract
from curate.errors import UserError
from curate.files import read_json, write_json


def load(
    name: str,
    contract: Contract | None = None,
    calibrated: bool = True,
    model_name: str = "",
    seconds: float = SECONDS,
) -> Answering:
    """The model of that name, ready to answer; ``calibrated`` with what calibration has left.

    ``model_name`` and ``seconds`` are for an address: what to ask for, how long to wait.
    """
    if name.startswith(("http://", "https://")):
        return Endpoint(name, contract or Contract(), model_name, seconds)
    if (Path(name) / ENDPOINT).exists():
        return _connected(Path(name), contract, calibrated, seconds)
    from abstain.answerer import load_answerer

    return load_answerer(name, contract, calibrated)


def connect(address: str, model: str, contract: Contract, folder: Path) -> None:
    """Make a folder that stands for a server's model, so that it can be calibrated and served.

    Raises `UserError` where the server cannot be reached, or the folder is a run already.
    """
    if (folder / FILE).exists():
        raise UserError(f"{folder}: there is a run already; give another folder")
    found = Endpoint(address, contract, model)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ENDPOINT, {"address": without_password(address), "model": found.model})
    RunFile(contract).write(folder)


def _connected(
    folder: Path, contract: Contract | None, calibrated: bool, seconds: float
) -> Endpoint:
    if contract is not None:
        raise UserError(f"{folder}: keeps the prompt and the phrase that it was connected with")
    value, stored = read_json(folder / ENDPOINT), read_run_file(folder)
    try:
        address, model = str(value["address"]), str(value["model"])
    except (KeyError, TypeError) as error:
        what = json.dumps(value)[:100]
        raise UserError(f"{folder / ENDPOINT}: no address and model in it: {what}") from error
    found = Endpoint(address, stored.contract, model, seconds)
    found.run = folder
    if calibrated and stored.calibration is not None:
        found.calibration = stored.calibration
        found.gather(stored.calibration.evidence)
    return found
