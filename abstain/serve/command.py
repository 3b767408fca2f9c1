"""`abstain serve` and `abstain keys`."""

import ipaddress
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from curate import console
from curate.annotate.label_studio.command import address_option
from curate.console import json_option

if TYPE_CHECKING:
    from abstain.cascade import Cascade
    from abstain.serve.app import Settings
    from abstain.serve.service import Service

_PATH = click.Path(path_type=Path)
_state_option = click.option(
    "--state",
    type=_PATH,
    default=Path("service"),
    show_default=True,
    help="Folder of the service: queue, decisions, keys.",
)


@click.command()
@click.argument("run")
@click.option("--policy", type=_PATH, help="What is done with each question, as a YAML file.")
@click.option("--host", default="127.0.0.1", show_default=True, help="On which address.")
@click.option("--port", default=8000, show_default=True)
@_state_option
@click.option("--queue", metavar="URL", help="A team's queue: postgresql+psycopg://…")
@click.option("--model-name", default="", help="Of the model to ask for, where RUN is an address.")
@click.option(
    "--most-waiting",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Questions that may wait for the model; the next is told to come again (429).",
)
@click.option(
    "--prefix-cache",
    type=click.IntRange(0),
    default=512,
    show_default=True,
    metavar="MIB",
    help="Memory for computed contexts, which the next question on one need not read again.",
)
@click.option(
    "--most-bytes", type=click.IntRange(1), default=2**20, show_default=True, help="Of a request."
)
@click.option("--allow-origin", default="", metavar="URL", help="Lets a page from elsewhere ask.")
@click.option(
    "--label-studio",
    "project",
    metavar="PROJECT",
    help="Take in what annotators of this project say of the queue, as they say it.",
)
@address_option
def serve(
    run: str,
    policy: Path | None,
    host: str,
    port: int,
    state: Path,
    queue: str | None,
    model_name: str,
    most_waiting: int,
    prefix_cache: int,
    most_bytes: int,
    allow_origin: str,
    project: str | None,
    address: str,
) -> None:
    """Answer questions over HTTP, for any OpenAI client; try it at the address itself.

    RUN is a folder of `train run`, or of `abstain connect` for a server's model, calibrated; or
    such a server's address, which answers without a guarantee. What the policy escalates is in the
    queue before the asker is told so, and what is audited too; see `abstain queue`. Without keys
    (`abstain keys add`) only this machine may ask.

    \b
      abstain serve out/run --policy policy.yaml
      curl http://127.0.0.1:8000/v1/ask -H 'content-type: application/json' \\
        -d '{"question": "How long do refunds take?", "context": "Refunds take five days."}'
    """
    from abstain.serve import app, service, watch
    from abstain.serve.keys import Keys
    from abstain.serve.model_thread import ModelThread
    from curate.errors import UserError

    keys = Keys(state)
    needs_key = bool(keys.names())
    if not needs_key and not _is_loopback(host):
        raise UserError(
            f"{host} is open to others and there are no keys: make one with `abstain keys add NAME "
            f"--state {state}`, or stay on 127.0.0.1"
        )
    thread = ModelThread()
    cascade = thread.do(lambda: _cascade(run, policy, model_name, prefix_cache)).result()
    opened = service.open_queue(state, queue)
    running = service.Service(cascade, state, opened, most_waiting, thread)
    name = model_name or Path(run).name
    beside = [lambda: watch.keep_watching(running)]
    settings = app.Settings(
        name, keys, needs_key, most_bytes, allowed_origin=allow_origin, beside=beside
    )
    click.echo(f"{cascade.policy.explain()}\n{cascade.threshold.promise()}")
    click.echo(f"http://{host}:{port}  (Ctrl-C stops, after answering what was accepted)")
    if project is None:
        _run(running, settings, host, port)
        return
    from abstain.serve.label_studio import PATH, Receiver
    from curate.annotate.label_studio import server

    out = state / "queue-annotations.parquet"
    receiver = Receiver(running.queue, server.connect(address), project, out)
    settings = replace(
        settings,
        webhook=receiver.handler(),
        beside=[*settings.beside, receiver.keep_taking_in],
    )
    # uvicorn raises the signal again when it has stopped: we have to sign off before we end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared only
    with receiver.registered(f"http://{reachable}:{port}{PATH}"):
        _run(running, settings, host, port)


def _run(running: "Service", settings: "Settings", host: str, port: int) -> None:
    import uvicorn

    from abstain.serve import app, stopping

    stopping.run(
        uvicorn.Config(
            app.create(running, settings),
            host=host,
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=int(running.seconds) + 5,
        )
    )


def _cascade(run: str, policy: Path | None, model_name: str, prefix_cache: int) -> "Cascade":
    from abstain import policy as policies
    from abstain.cascade import assemble
    from abstain.load import load
    from abstain.prefix_cache import PrefixCache
    from abstain.router import PLAIN

    rules = policies.read(policy) if policy is not None else PLAIN
    answerer = load(run, model_name=model_name, seconds=rules.budget.seconds)
    answerer.prefixes = PrefixCache(prefix_cache * 2**20)
    return assemble(answerer, rules)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@click.group()
def keys() -> None:
    """Who may ask, and who may answer what is in the queue.

    A key is shown once, when it is made; its hash is kept. Removing one takes effect at once.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--for",
    "scope",
    type=click.Choice(["ask", "people"]),
    default="ask",
    show_default=True,
    help="To ask questions, or to answer those in the queue as well.",
)
@_state_option
@json_option
def add(name: str, scope: str, state: Path, as_json: bool) -> None:
    """Make a key for NAME and show it, this once."""
    from abstain.serve.keys import Keys

    secret = Keys(state).make(name, "people" if scope == "people" else "ask")
    console.show({"name": name, "scope": scope, "key": secret}, secret, as_json)


@keys.command(name="list")
@_state_option
@json_option
def list_(state: Path, as_json: bool) -> None:
    """List whose keys there are."""
    from abstain.serve.keys import Keys

    found = [(key.name, key.scope) for key in Keys(state).names()]
    value = [{"name": name, "scope": scope} for name, scope in found]
    console.show(value, console.table(("name", "for"), found), as_json)


@keys.command()
@click.argument("name")
@_state_option
def remove(name: str, state: Path) -> None:
    """Take NAME's key away; a running server refuses it from then on."""
    from abstain.serve.keys import Keys

    Keys(state).remove(name)
    click.echo(f"the key of {name} opens nothing any more")
