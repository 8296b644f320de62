"""Codecs: bytes and headers on one side, core types on the other. Pure: no sockets, no event loop, no aiohttp."""
