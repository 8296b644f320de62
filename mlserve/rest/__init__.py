"""HTTP: the fast lane, the aiohttp applications, and what writes their answers."""
