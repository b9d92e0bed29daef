"""Client of intake's internal API: who may see more than an event says asks here, with a token."""

from collections.abc import AsyncIterator, Iterable
from http import HTTPStatus

from aiohttp import ClientSession

from chassis.auth import ServiceToken
from contracts.http.intake import (
    Case,
    CaseLookup,
    CaseLookupResult,
    ContactLookup,
    ContactLookupResult,
    Subject,
    SubjectIdentified,
    SubjectIdentify,
    SubjectLookup,
    SubjectLookupResult,
)
from contracts.http.objection import ObjectionCase, ObjectionLookup, ObjectionLookupResult
from contracts.records import SubjectType


class CaseDirectory:
    """Looks up subjects and applications in batches of at most 500. Raises aiohttp.ClientError when intake does not answer."""

    def __init__(self, http: ClientSession, intake_url: str, token: ServiceToken) -> None:
        self._http = http
        self._url = intake_url.rstrip("/")
        self._token = token

    async def subjects(self, ids: Iterable[str]) -> dict[str, Subject]:
        """Subject id -> subject; unknown ids are missing."""
        found: dict[str, Subject] = {}
        for chunk in _chunks(ids):
            body = await self._post("subjects/lookup", SubjectLookup(subject_ids=chunk).model_dump_json())
            found |= {s.subject_id: s for s in SubjectLookupResult.model_validate_json(body).subjects}
        return found

    async def emails(self, subject_ids: Iterable[str]) -> dict[str, str]:
        """Subject id -> the e-mail address it gave last; without those that gave none."""
        found: dict[str, str] = {}
        for chunk in _chunks(subject_ids):
            body = await self._post("contacts/lookup", ContactLookup(subject_ids=chunk).model_dump_json())
            found |= ContactLookupResult.model_validate_json(body).emails
        return found

    async def cases(self, application_ids: Iterable[str]) -> dict[str, Case]:
        """Application id -> case; unknown ids are missing."""
        found: dict[str, Case] = {}
        for chunk in _chunks(application_ids):
            body = await self._post("cases/lookup", CaseLookup(application_ids=chunk).model_dump_json())
            found |= {c.application_id: c for c in CaseLookupResult.model_validate_json(body).cases}
        return found

    async def objections(self, objection_ids: Iterable[str]) -> dict[str, ObjectionCase]:
        """Objection id -> what its subject wrote; unknown ids are missing."""
        found: dict[str, ObjectionCase] = {}
        for chunk in _chunks(objection_ids):
            body = await self._post(
                "objections/lookup", ObjectionLookup(objection_ids=chunk).model_dump_json()
            )
            found |= {c.objection_id: c for c in ObjectionLookupResult.model_validate_json(body).objections}
        return found

    async def material(self, material_id: str) -> AsyncIterator[bytes]:
        """The content of a material, piece by piece; nothing for an unknown id."""
        async for piece in self._content(f"materials/{material_id}"):
            yield piece

    async def commitment(self, application_id: str) -> AsyncIterator[bytes]:
        """The commitment of an application as PDF, piece by piece; nothing where it has none."""
        async for piece in self._content(f"applications/{application_id}/commitment"):
            yield piece

    async def _content(self, path: str) -> AsyncIterator[bytes]:
        url = f"{self._url}/v1/internal/{path}"
        async with self._http.get(url, headers=await self._token.headers()) as response:
            if response.status == HTTPStatus.NOT_FOUND:
                return
            response.raise_for_status()
            async for piece in response.content.iter_chunked(65_536):
                yield piece

    async def identify(self, subject_type: SubjectType, code: str) -> str:
        """The subject id (pseudonym) of a subject known by its code."""
        body = await self._post(
            "subjects/identify", SubjectIdentify(subject_type=subject_type, code=code).model_dump_json()
        )
        return SubjectIdentified.model_validate_json(body).subject_id

    async def _post(self, path: str, body: str) -> bytes:
        headers = {"content-type": "application/json", **await self._token.headers()}
        url = f"{self._url}/v1/internal/{path}"
        async with self._http.post(url, data=body, headers=headers) as response:
            response.raise_for_status()
            return await response.read()


def _chunks(ids: Iterable[str]) -> list[list[str]]:
    unique = sorted(set(ids))
    return [unique[i : i + 500] for i in range(0, len(unique), 500)]
