"""``pgresults prove | check-proof | evidence``: what somebody can check who has no database.

Exit codes of ``check-proof``: 0 it holds, 1 it does not, 2 wrong usage.
"""

from pathlib import Path
from typing import Annotated

import typer

from pgresults.audit.certificates import check as check_certificate
from pgresults.audit.certified import certified, is_certificate
from pgresults.audit.evidence import evidence as bundle
from pgresults.audit.proofs import check
from pgresults.audit.seals import Seal
from pgresults.audit.standalone import said
from pgresults.cli.output import Output, print_bytes, replacing, say
from pgresults.cli.progress import waiting
from pgresults.cli.results import Key
from pgresults.cli.session import session
from pgresults.database.programs import perform
from pgresults.store import ResultStore

SealFile = Annotated[Path, typer.Option("--seal", exists=True, dir_okay=False, help="The seal that covers it.")]
NoSalt = Annotated[
    bool, typer.Option("--no-salt", help="Hold back what a guess at the payload, or the payload, could be tested with.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(prove)
    app.command("check-proof")(check_proof)
    app.command()(evidence)


def prove(
    context: typer.Context,
    key: Key,
    seal: SealFile,
    version: Annotated[int | None, typer.Option(min=1, help="By default the newest one.")] = None,
    output: Output = None,
    no_salt: NoSalt = False,
) -> None:
    """Prove to somebody without the database that a version of KEY is in what a seal covers."""
    sealed = Seal.load_bytes(seal.read_bytes())
    with session(context).storage() as storage, waiting("Proving"):
        proof = ResultStore(result_storage=storage).prove(key, version, seal=sealed, salt=not no_salt)
    data = proof.dump_bytes()
    if output is None:
        print_bytes(data)
        return
    with replacing(output) as file:
        file.write_bytes(data)
    say(f"{output}: version {proof.entry['version']} of {key}, {len(data):,} bytes")


def check_proof(
    context: typer.Context,
    proof: Annotated[
        Path, typer.Argument(dir_okay=False, metavar="FILE", help="The proof, or a certificate of erasure.")
    ],
    payload: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Bytes that are to be the payload.")
    ] = None,
    public_key: Annotated[
        str | None, typer.Option(metavar="HEX", help="The key that signs seals; else PGRESULTS_SEAL_PUBLIC_KEY.")
    ] = None,
) -> None:
    """Check a proof or a certificate of erasure, by neither the database nor the extra `audit`.

    It loads nothing that runs code.

    Exit code 0 it holds, 1 it does not.
    """
    trusted = public_key or session(context).settings.seal_public_key
    if trusted is None:
        raise typer.BadParameter("name the key that signs seals, as you were told it: --public-key HEX")
    data = proof.read_bytes()
    if is_certificate(data):
        if payload is not None:
            raise typer.BadParameter("a certificate of erasure has no payload: leave --payload out")
        say(certified(check_certificate(data, trusted)))
        return
    content = None if payload is None else payload.read_bytes()
    checked = check(data, trusted, content)
    say(f"{said(checked)}{'' if payload is None else '; the payload is the one that it names'}")


def evidence(
    context: typer.Context,
    key: Key,
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, writable=True, help="The zip file.")],
    seal: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The seal that covers it; by default a new one.")
    ] = None,
    no_payloads: Annotated[
        bool,
        typer.Option("--no-payloads", help="Leave out what was stored, and the salts."),
    ] = False,
) -> None:
    """Put all that proves the history of KEY into a zip file, with a checker of one file that needs Python alone."""
    with session(context).storage() as storage, waiting("Collecting evidence"):
        sealed = ResultStore(result_storage=storage).seal() if seal is None else Seal.load_bytes(seal.read_bytes())
        data = perform(bundle(storage, key, sealed, not no_payloads))
    with replacing(output) as file:
        file.write_bytes(data)
    say(f"{output}: {len(data):,} bytes, to be checked by the public key {sealed.public_key}")
