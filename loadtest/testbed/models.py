"""A stand-in for the APIs of models: OpenAI's chat completions and Anthropic's messages, whole and as streams.

It knows what it has stated: an answer is added to `stated` with the piece that states its usage.
"""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from loadtest.testbed.ports import HOST


class Models:
    """The stand-in. `pause`: seconds between two pieces of a stream."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.stated: Counter[tuple[str, str]] = Counter()
        """Tokens by model, and `input`, `output` or `cached`."""
        self.streams = 0
        """Streams that have begun."""
        self.app = web.Application()
        self.app.router.add_post("/v1/chat/completions", self.chat)
        self.app.router.add_post("/v1/messages", self.messages)

    def _count(self, model: str, **tokens: int) -> None:
        for kind, number in tokens.items():
            self.stated[model, kind] += number

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """https://platform.openai.com/docs/api-reference/chat: as many tokens as `max_tokens` says."""
        assert request.headers["Accept-Encoding"] == "identity"
        body = await request.json()
        model, number = body["model"], body["max_tokens"]
        prompt = sum(len(message["content"].split()) for message in body["messages"])
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": number,
            "total_tokens": prompt + number,
            "prompt_tokens_details": {"cached_tokens": prompt // 2},
        }
        head = {"id": "chatcmpl-1", "created": 1, "model": model}
        stated = {"input": prompt, "output": number, "cached": prompt // 2}
        if not body.get("stream"):
            self._count(model, **stated)
            message = {"role": "assistant", "content": "word " * number}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
            return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        head["object"] = "chat.completion.chunk"
        choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        last = {**choice, "finish_reason": "stop"}
        parts: list[Any] = [{**head, "choices": [each]} for each in [*[choice] * (number - 1), last]]
        if body.get("stream_options", {}).get("include_usage"):
            parts = [{**part, "usage": None} for part in parts] + [{**head, "choices": [], "usage": usage}]
            answer = await self._begin(request)
            for part in parts[:-1]:
                await self._write(answer, part)
            self._count(model, **stated)
            await self._write(answer, parts[-1])
        else:
            answer = await self._begin(request)
            for part in parts:
                await self._write(answer, part)
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """https://docs.anthropic.com/en/api/messages: as many tokens as `max_tokens` says."""
        body = await request.json()
        model, number = body["model"], body["max_tokens"]
        prompt = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"input_tokens": prompt, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 3}
        stated = {"input": prompt + 5, "output": number, "cached": 2}
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": model}
        ended = {"stop_reason": "end_turn", "stop_sequence": None}
        if not body.get("stream"):
            self._count(model, **stated)
            content = [{"type": "text", "text": "word " * number}]
            return web.json_response({**head, **ended, "content": content, "usage": {**usage, "output_tokens": number}})
        answer = await self._begin(request)
        begun = {**head, "content": [], "stop_reason": None, "stop_sequence": None}
        text = {"type": "text_delta", "text": "word "}
        parts: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**begun, "usage": {**usage, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *[{"type": "content_block_delta", "index": 0, "delta": text}] * number,
            {"type": "content_block_stop", "index": 0},
        ]
        for part in parts:
            await self._write(answer, part, str(part["type"]))
        self._count(model, **stated)
        await self._write(
            answer, {"type": "message_delta", "delta": ended, "usage": {"output_tokens": number}}, "message_delta"
        )
        await self._write(answer, {"type": "message_stop"}, "message_stop")
        return answer

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        self.streams += 1
        return answer

    async def _write(self, answer: web.StreamResponse, part: object, name: str = "") -> None:
        kind = f"event: {name}\n" if name else ""
        await answer.write(f"{kind}data: {json.dumps(part)}\n\n".encode())
        await asyncio.sleep(self.pause)

    @asynccontextmanager
    async def open(self, port: int) -> Any:
        """Serve on this port. A request whose client leaves is given up, as by those who run models."""
        runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        try:
            yield
        finally:
            await runner.cleanup()
