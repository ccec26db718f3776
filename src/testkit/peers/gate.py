"""The way in from other servers: it can be shut, which is what a broken network looks like from both ends."""

import asyncio
import threading


class Gates:
    """All gates of a world, carried by one thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def open(self, address, port, behind):
        """A gate at this address and port, which leads to another port of the same address."""
        gate = Gate(self.loop, address, behind)
        asyncio.run_coroutine_threadsafe(asyncio.start_server(gate.carry, address, port), self.loop).result()
        return gate


class Gate:
    """Carries bytes from one port to another while it is open. Shut, it breaks what it carries and takes nothing."""

    def __init__(self, loop, address, behind):
        self.loop, self.address, self.behind = loop, address, behind
        self.is_shut = False
        self.carried = set()

    def shut(self):
        self.loop.call_soon_threadsafe(self._set, True)

    def open(self):
        self.loop.call_soon_threadsafe(self._set, False)

    def _set(self, shut):
        self.is_shut = shut
        for writer in self.carried if shut else ():
            writer.transport.abort()

    async def carry(self, reader, writer):
        """One connection, until either end closes it."""
        try:
            if self.is_shut:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection(self.address, self.behind)
        except OSError:  # nobody is at home
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self.carried |= ends
        ways = [asyncio.ensure_future(pump(reader, far_writer)), asyncio.ensure_future(pump(far_reader, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        self.carried -= ends
        for end in ends:
            end.close()


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
