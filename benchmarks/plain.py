"""Plain tornado handlers in the same `jupyter server`: what the server extension is compared with. Copied into the server's folder; knows nothing of us."""

import asyncio
from pathlib import Path

from tornado import web, websocket

BLOCK = 64 * 1024
END = b"the end of all"


def whole(path):
    """A file."""
    return Path(path).read_bytes()


class Answer(web.RequestHandler):
    """A constant."""

    def get(self):
        """Say it."""
        self.set_header("Content-Type", "application/json")
        self.finish(b'{"ok": true}')


class Stream(web.RequestHandler):
    """A file's bytes in blocks, then the mark of the end. The answer has no end of its own: who has seen the mark goes."""

    async def get(self):
        """Send them."""
        data = whole(self.get_argument("path"))
        for start in range(0, len(data), BLOCK):
            self.write(data[start : start + BLOCK])
            await self.flush()
        self.write(END)
        await self.flush()
        await self.finish()


class Socket(websocket.WebSocketHandler):
    """The same as messages, once the client has named the file."""

    async def on_message(self, message):
        """Send them."""
        data = whole(message)
        for start in range(0, len(data), BLOCK):
            await self.write_message(data[start : start + BLOCK], binary=True)
            await asyncio.sleep(0)  # another one's turn: a send that the socket takes at once does not give way
        await self.write_message(END, binary=True)


def _jupyter_server_extension_points():
    return [{"module": "plain"}]


def _load_jupyter_server_extension(serverapp):
    serverapp.web_app.add_handlers(".*$", [("/plain", Answer), ("/plain/stream", Stream), ("/plain/ws", Socket)])
