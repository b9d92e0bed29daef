"""Client of sync for repair certificates."""

from aiohttp import ClientSession

from chassis.auth import ServiceToken


class CertificateClient:
    """Asks sync with a token of intake's own (scope ``propagation.read``)."""

    def __init__(self, http: ClientSession, sync_url: str, token: ServiceToken) -> None:
        self._http = http
        self._url = sync_url.rstrip("/")
        self._token = token

    async def fetch(self, record_id: str, form: str) -> tuple[int, str, bytes]:
        """(status, media type, content). Raises aiohttp.ClientError or TimeoutError when nobody answers."""
        url = f"{self._url}/v1/records/{record_id}/certificate?format={form}"
        async with self._http.get(url, headers=await self._token.headers()) as response:
            return response.status, response.content_type, await response.read()
