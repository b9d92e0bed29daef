"""Letters to vendors: where they go (catalogue), and the PDF (asked of sync)."""

from collections.abc import Mapping

from aiohttp import ClientSession

from chassis.auth import ServiceToken
from contracts.catalogue import LetterOffice
from notify.domain import Failure
from notify.store import VendorLetterRef

NO_OFFICE = Failure("平台目录中没有该平台收函的电子邮箱", permanent=True)
NO_SUPERVISOR = Failure("平台目录中没有该平台主管单位的电子邮箱", permanent=True)


class VendorLetters:
    """``offices``: target id -> where the catalogue sends letters. The token needs scope ``propagation.read``."""

    def __init__(
        self, http: ClientSession, sync_url: str, token: ServiceToken, offices: Mapping[str, LetterOffice]
    ) -> None:
        self._http = http
        self._url = sync_url.rstrip("/")
        self._token = token
        self._offices = offices

    def address(self, letter: VendorLetterRef) -> str | Failure:
        """Where the letter goes."""
        office = self._offices.get(letter.target_id)
        if letter.to_supervisor:
            return (office and office.supervisor_email) or NO_SUPERVISOR
        return (office and office.email) or NO_OFFICE

    async def pdf(self, letter: VendorLetterRef) -> bytes:
        """The letter as it was issued. Raises aiohttp.ClientError or TimeoutError."""
        url = f"{self._url}/v1/vendor-letters/{letter.letter_id}/pdf"
        async with self._http.get(url, headers=await self._token.headers()) as response:
            response.raise_for_status()
            return await response.read()
