"""Commands against an agent, or what listens in its place, that says anything: printable, exit 1."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from tests.commands.run import error_of, run

ODD = "odd\x1b[31m\x9b\u2028\u202e\x7f\ud800"


@contextmanager
def agent_that_says(answers: dict[str, tuple[int, str]]) -> Iterator[dict[str, str]]:
    """An HTTP server that answers by the beginning of the path; yields the environment that names it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(self.path, errors="surrogatepass")
            status, text = next((a for start, a in answers.items() if path.startswith(start)), (404, "no"))
            body = text.encode("utf-8", "surrogatepass")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {"REGISTRATOR_AGENT": f"http://127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def printable(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def explained(name: str) -> str:
    instance = {
        "id": name,
        "node": name,
        "status": "passing",
        "answered": True,
        "why": name,
        "addresses": [{"address": name, "port": 80, "network": name}],
    }
    return json.dumps({"service": name, "asker": {"what": name}, "instances": [instance]})


@pytest.mark.parametrize("arguments", [["services"], ["explain", "odd"], ["lookup", "odd"]])
def test_what_is_printed_has_no_control_characters(arguments: list[str]) -> None:
    """Of a name, a tag, a node, an address, an output; as JSON it is all there."""
    entry = {"Node": {"Node": ODD}, "Service": {"ID": ODD}, "Checks": [{"Status": ODD, "Output": ODD}]}
    answers = {
        "/v1/catalog/services": (200, json.dumps({ODD: [ODD], "good": []})),
        "/v1/health/service/good": (200, json.dumps([entry])),
        "/v1/health/service/": (400, ODD),
        "/explain/": (200, explained(ODD)),
    }
    with agent_that_says(answers) as env:
        text, document = run(*arguments, env=env), run(*arguments, "--json", env=env)
    assert (text.returncode, text.stderr, document.returncode) == (0, "", 0)
    assert r"odd\x1b[31m\x9b\u2028\u202e\x7f" in text.stdout
    assert printable(text.stdout)
    assert printable(document.stdout)
    assert "odd" in json.dumps(json.loads(document.stdout))


def test_services_lists_a_service_that_the_agent_cannot_read() -> None:
    """With ? for how many there are; the others have their numbers, and --json says why."""
    answers = {
        "/v1/catalog/services": (200, json.dumps({"bad": [], "good": []})),
        "/v1/health/service/good": (200, "[]"),
        "/v1/health/service/bad": (503, "the catalog cannot be read"),
    }
    with agent_that_says(answers) as env:
        listed = run("services", env=env)
        known = json.loads(run("services", "--json", env=env).stdout)
    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [
        ["bad", "?", "?", "?"],
        ["good", "0", "0", "0"],
    ]
    assert [
        service["name"] for service in known if "the catalog cannot be read" in service.get("error", "")
    ] == ["bad"]


NONSENSE = {
    "not JSON": "<html>",
    "nested deep": "[" * 100_000,
    "a number of 5000 digits": "1" * 5000,
    "null": "null",
    "a list": "[7]",
    "members that are null": '{"instances": null, "a": null, "containers": null, "service": 5, "asker": []}',
    "instances that are numbers": '{"instances": [7], "web": [7]}',
    "a surrogate": r'"\ud800"',
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("arguments", [["services"], ["explain", "odd"], ["lookup", "odd"], ["watch"]])
def test_an_answer_that_makes_no_sense_is_one_line(arguments: list[str], text: str) -> None:
    """Never a traceback."""
    with agent_that_says({"/": (200, text)}) as env:
        result = run(*arguments, env=env)
    assert result.returncode == 1
    assert "is no agent" in error_of(result)
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["services"], ["explain", ODD[:8]], ["lookup", ODD[:8]], ["watch"]])
@pytest.mark.parametrize("status", [404, 500])
def test_an_error_is_printed_escaped(arguments: list[str], status: int) -> None:
    with agent_that_says({"/": (status, json.dumps({"error": ODD}))}) as env:
        result = run(*arguments, env=env)
    assert result.returncode == 1
    assert r"odd\x1b[31m\x9b" in error_of(result)
    assert printable(result.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["services", "--agent", "http://\x1b[31m"],
        ["bogus\x1b[31m"],
        ["lookup", "--bad\x1b"],
        ["lookup", "x\x1b:A", "--dns", "127.0.0.1:1"],
        ["lookup", "x:A", "--domain", "\x1b"],
        ["maintenance", "x\x1b", "--consul", "http://127.0.0.1:1/\x1b"],
        ["maintenance", "x\x1b", "--consul", "unix:///\x1b.sock"],
        ["agent", "--docker", "gopher://\x1b"],
    ],
)
def test_what_was_typed_is_printed_escaped(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.returncode in (1, 2)
    assert printable(result.stderr)
    assert error_of(result)
