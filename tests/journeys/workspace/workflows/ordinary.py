"""What every workflow may expect to work, whatever encloses it."""

import multiprocessing
import os
import pwd
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
import zoneinfo
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import aiohttp
import httpx
import requests

from bifrost_kernel import OrganizationContext, param, workflow


def _square(number: int) -> int:
    return number * number


def _use_sqlite() -> int:
    with sqlite3.connect(Path(tempfile.gettempdir(), "work.db")) as database:
        database.execute("CREATE TABLE numbers (n)")
        database.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(10)])
        return database.execute("SELECT sum(n) FROM numbers").fetchone()[0]


def _use_sockets() -> bytes:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client, accepted:
            client.sendall(b"hello")
            return accepted.recv(5)


@workflow(name="ordinary", description="Use the standard library as people do")
def ordinary(context: OrganizationContext):
    with tempfile.NamedTemporaryFile("w+") as file, multiprocessing.get_context("fork").Pool(2) as pool:
        file.write("kept")
        file.seek(0)
        answers = {
            "tempfile": file.read(),
            "subprocess": subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True).stdout,
            "shell": subprocess.run("echo $((6 * 7)) | cat", shell=True, capture_output=True, text=True).stdout,
            "threads": list(ThreadPoolExecutor(4).map(_square, range(4))),
            "multiprocessing": pool.map(_square, range(4)),
            "sqlite": _use_sqlite(),
            "sockets": _use_sockets().decode(),
            "certificates": len(ssl.create_default_context().get_ca_certs()) > 0,
            "zone": datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).isoformat(),
            "user": os.path.isabs(pwd.getpwuid(os.getuid()).pw_dir),
            "lock": threading.Lock().acquire(timeout=1),
            "random": len(os.urandom(8)),
        }
    return answers


@workflow(name="fetch", description="Fetch one address with every HTTP library")
@param("url", type="string")
async def fetch(context: OrganizationContext, url: str):
    def by_urllib() -> int:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        by_aiohttp = answer.status
    return {
        "httpx": httpx.get(url).status_code,
        "requests": requests.get(url, timeout=10).status_code,
        "urllib": by_urllib(),
        "aiohttp": by_aiohttp,
    }


@workflow(name="tunnel", description="Ask the proxy for a tunnel to a place")
@param("host", type="string")
@param("port", type="int")
def tunnel(context: OrganizationContext, host: str, port: int):
    return _tunnel(host, port)


@workflow(
    name="tunnel_to_example", description="The same with a list", egress=["example.invalid", "*.example.invalid:443"]
)
@param("host", type="string")
@param("port", type="int")
def tunnel_to_example(context: OrganizationContext, host: str, port: int):
    return _tunnel(host, port)


@workflow(name="tunnel_nowhere", description="The same with an empty list", egress=[])
@param("host", type="string")
@param("port", type="int")
def tunnel_nowhere(context: OrganizationContext, host: str, port: int):
    return _tunnel(host, port)


def _tunnel(host: str, port: int) -> str:
    proxy = os.environ["https_proxy"].removeprefix("http://").split(":")
    with socket.create_connection((proxy[0], int(proxy[1])), 10) as sock:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = sock.recv(2000).decode()
        return answer if answer.startswith("HTTP/1.1 403") else answer.split("\r\n")[0]
