"""``db check`` and ``verify`` say what surrounds the history otherwise than it should."""

import psycopg
from sqlalchemy import URL

from tests.support.cli import Cli, succeeded
from tests.support.database import psycopg_url


def test_the_command_and_verify_say_it(cli: Cli, fresh_url: URL) -> None:
    url = psycopg_url(fresh_url)
    succeeded(cli("put", "k", "x", url=url))
    with psycopg.connect(url) as admin:
        admin.execute(
            "ALTER FUNCTION pgresults.project_document() SECURITY INVOKER; DROP INDEX pgresults.history_at_idx"
        )
    checked, verified = cli("db", "check", url=url), cli("verify", url=url)
    assert (checked.exit_code, verified.exit_code) == (1, 1)
    assert "security is 'invoker' and should be 'definer'" in " ".join(checked.stderr.split())
    assert "history: btree (at) is gone" in " ".join(checked.stderr.split())
    assert "security is 'invoker' and should be 'definer'" in verified.stdout
    assert "btree" not in verified.stdout
