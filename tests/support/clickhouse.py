"""ClickHouse's HTTP interface for exports: ClickHouse itself (chdb) if it is installed, or a model in memory.

The model has the tables and accepts only the two statements of an export.
"""

import json
import re
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from aiohttp import web

from edgeproxy.collector.exports import files, reading_files
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import ROOT
from loadtest.testbed.threaded_server import Threaded

DATABASE = "analytics"
USER, PASSWORD = "exporter", "a-password-of-ClickHouse"
INSERT = re.compile(r"INSERT INTO (\w+) \(([\w, ]+)\) FORMAT Parquet")
SELECT = re.compile(r"SELECT file, count\(\), toString\(sum\(toInt128\(value\)\)\) FROM (\w+) GROUP BY file")
SCHEMAS = {
    folder: schema.append(pa.field("file", pa.string()))
    for folder, schema in ((files.FOLDER, files.SCHEMA), (reading_files.FOLDER, reading_files.SCHEMA))
}


def read_tables() -> list[str]:
    """Return the statements of docs/usage/export.md that create the tables."""
    page = (ROOT / "docs" / "usage" / "export.md").read_text()
    return re.findall(r"CREATE TABLE.*?;", page, re.DOTALL)


class Engine(Protocol):
    """An engine that answers statements."""

    def run(self, statement: str, settings: dict[str, str], body: bytes) -> bytes:
        """Return the answer; raises an Exception with the reason."""
        ...


class Model:
    """The two tables, each a list of blocks, and the known tokens."""

    def __init__(self) -> None:
        self.blocks: dict[str, list[pa.Table]] = {table: [] for table in SCHEMAS}
        self.tokens: set[tuple[str, str]] = set()

    def run(self, statement: str, settings: dict[str, str], body: bytes) -> bytes:
        if insert := INSERT.fullmatch(statement):
            table, names = insert[1], insert[2].split(", ")
            rows = pq.read_table(pa.BufferReader(body))
            assert rows.column_names == names
            assert [field.type for field in rows.schema] == [SCHEMAS[table].field(name).type for name in names]
            assert settings["max_insert_block_size"] == str(len(rows)), "the rows would need more than one block"
            token = table, settings["insert_deduplication_token"]
            if token not in self.tokens:
                self.tokens.add(token)
                self.blocks[table].append(rows)
            return b""
        select = SELECT.fullmatch(statement)
        assert select is not None, statement
        lines = []
        for block in self.blocks[select[1]]:
            assert len(set(block["file"].to_pylist())) == 1
            lines.append([block["file"][0].as_py(), len(block), str(sum(block["value"].to_pylist()))])
        return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


class Embedded:
    """ClickHouse as a library."""

    def __init__(self, folder: Path) -> None:
        import chdb.session

        self._folder = folder
        self._session: Any = chdb.session.Session(str(folder / "clickhouse"))
        self._session.query(f"CREATE DATABASE {DATABASE}; USE {DATABASE}")
        for statement in read_tables():
            self._session.query(statement)

    def run(self, statement: str, settings: dict[str, str], body: bytes) -> bytes:
        form = settings.pop("default_format", "TabSeparated")
        text = ", ".join(f"{name}='{value}'" for name, value in settings.items() if name != "wait_end_of_query")
        if statement.startswith("INSERT"):
            file = self._folder / "inserted.parquet"
            file.write_bytes(body)
            statement = statement.replace("FORMAT Parquet", f"FROM INFILE '{file}' SETTINGS {text} FORMAT Parquet")
        else:
            statement = f"{statement} SETTINGS {text}"
        answer: bytes = self._session.query(statement, form).bytes()
        return answer

    def close(self) -> None:
        self._session.close()


class ClickHouseServer(Threaded):
    """The server. It can lose a connection before or after the nth request is done.

    It can also answer with the state before the last INSERT, like a replica that is behind.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__("clickhouse")
        self._engine = engine
        self.port = 0
        self.requests: list[str] = []
        self.loses: int | None = None
        """The number of the request whose connection is lost; None for none."""
        self.loses_done = False
        """The lost request still takes effect."""
        self.is_behind = False
        self._last: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/{DATABASE}"

    async def _begin(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _end(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        settings = dict(request.query)
        statement, database = settings.pop("query"), settings.pop("database")
        if (request.headers.get("X-ClickHouse-User"), request.headers.get("X-ClickHouse-Key")) != (USER, PASSWORD):
            return web.Response(status=403, text="Code: 516. DB::Exception: Authentication failed")
        assert database == DATABASE
        self.requests.append(statement)
        is_lost = self.loses == len(self.requests) - 1
        body = await request.read()
        if is_lost and not self.loses_done:
            return self._lose(request)
        if self.is_behind and statement in self._last:
            answer = self._last[statement]
        else:
            try:
                answer = self._engine.run(statement, settings, body)
            except Exception as error:
                return web.Response(status=500, text=str(error))
        if statement.startswith("SELECT"):
            self._last[statement] = answer
        return self._lose(request) if is_lost else web.Response(body=answer)

    def _lose(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()
