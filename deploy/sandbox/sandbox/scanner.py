"""A scanner of uploads: finds the EICAR test file (https://www.eicar.org/download-anti-malware-testfile/) and nothing else."""

from fastapi import APIRouter, Request

from sandbox.faults import Faults

PART = "scanner"
_EICAR = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE"


def router(faults: Faults) -> APIRouter:
    """POST /scanner with the content of a file."""
    api = APIRouter(tags=["scanner"])

    @api.post("/scanner")
    async def scan(request: Request) -> dict[str, bool]:
        content = await request.body()
        await faults.outage(PART, request)
        return {"clean": _EICAR not in content}

    return api
