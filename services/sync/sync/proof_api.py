"""HTTP for proof: the keys everybody checks signatures with, and the history for those who verify it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.history import (
    EntryPage,
    EntryQuestion,
    HeadPage,
    HistoryHead,
    TipPage,
)
from contracts.http.verification import MAX_IDS
from contracts.records import RecordId
from contracts.signatures import KeySet
from contracts.tokens import Claims, Scope
from sync.history import History

router = APIRouter(prefix="/v1", tags=["可验证的历史与证明"])
Operator = Annotated[Claims, Depends(require(Scope.OPERATIONS))]
Limit = Annotated[int, Query(ge=1, le=MAX_IDS)]
HeadLimit = Annotated[int, Query(ge=1, le=10, description="每个签名头至多 1,000 片叶子")]


async def _history(request: Request) -> History:
    history: History = request.app.state.store.history
    return history


Books = Annotated[History, Depends(_history)]


@router.get("/keys", summary="签名公钥（JWK Set）：现用的和从前用过的")
async def keys(request: Request, response: Response) -> KeySet:
    """What signatures of heads and certificates are checked with. For everybody."""
    response.headers["Cache-Control"] = "public, max-age=300"
    found: KeySet = request.app.state.keys
    return found


@router.get("/history/head", summary="最新的签名头")
async def last_head(books: Books) -> HistoryHead:
    """For everybody: whoever keeps it can show later that what it covers was changed."""
    found = await books.last_head()
    if found is None:
        raise Problem(
            ProblemCode.NOT_FOUND, "还没有签名头：第一条历史写下之后，一分钟左右就会有，请稍后再看。"
        )
    return found


@router.get("/operations/history/entries", summary="历史的各条")
async def entries(
    _operator: Operator,
    books: Books,
    record_id: RecordId | None = None,
    after: str = "",
    limit: Limit = MAX_IDS,
) -> EntryPage:
    """Entries in order of their ids, of one record or of all."""
    return await books.entries(record_id, after, limit)


@router.post("/operations/history/lookup", summary="按编号查历史的若干条")
async def lookup(_operator: Operator, books: Books, question: EntryQuestion) -> EntryPage:
    """Those of the entries that are there."""
    return EntryPage(entries=await books.lookup(question.ids), next=None)


@router.get("/operations/history/tips", summary="各条链的末端")
async def tips(
    _operator: Operator,
    books: Books,
    record_id: RecordId | None = None,
    after: str = "",
    limit: Limit = MAX_IDS,
) -> TipPage:
    """The last entry of each chain, of one record or of all."""
    return await books.tips(record_id, after, limit)


@router.get("/operations/history/heads", summary="签名头及其叶子")
async def heads(
    _operator: Operator, books: Books, after: Annotated[int, Query(ge=0)] = 0, limit: HeadLimit = 10
) -> HeadPage:
    """Signed heads in order."""
    return await books.heads(after, limit)
