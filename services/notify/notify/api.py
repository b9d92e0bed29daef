"""HTTP: what a subject was told. Scope ``applicant``."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from aiohttp import ClientError, ClientResponseError
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from chassis.auth import require
from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.tokens import Claims, Scope
from notify.identities import Identities
from notify.store import Messages

router = APIRouter(prefix="/v1", tags=["我的消息"])
Applicant = Annotated[Claims, Depends(require(Scope.APPLICANT))]


class Message(BaseModel):
    """Something the subject was told. ``read_at`` is null until it was read."""

    id: str = Field(validation_alias="_id")
    application_id: str | None
    fact: str
    title: str
    text: str
    created_at: datetime
    read_at: datetime | None


class MessagePage(BaseModel):
    """Newest first. Ask again with ``after`` = ``next`` while it is not null."""

    messages: list[Message]
    next: str | None


async def _subject_id(request: Request, claims: Applicant) -> str:
    if claims.subject_type is None or not claims.subject_code:
        raise Problem(ProblemCode.FORBIDDEN, "令牌中没有信用主体信息，请选择所代表的主体后重新登录。")
    identities: Identities = request.app.state.identities
    try:
        return await identities.subject_id(claims.subject_type, claims.subject_code)
    except ClientResponseError as error:
        if error.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Problem(ProblemCode.FORBIDDEN, "令牌中的主体代码有误，请核对主体信息后重新登录。") from None
        raise _unavailable() from error
    except (ClientError, TimeoutError) as error:
        raise _unavailable() from error


def _unavailable() -> Problem:
    return Problem(
        ProblemCode.UNAVAILABLE, "暂时无法确认您的主体身份，请稍后重试。", headers={"Retry-After": "5"}
    )


SubjectOfCaller = Annotated[str, Depends(_subject_id)]


@router.get("/subjects/me/messages", summary="我的消息")
async def list_messages(
    request: Request,
    subject_id: SubjectOfCaller,
    unread: bool = False,
    after: Annotated[str | None, Query(max_length=200, description="上一页的 next")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> MessagePage:
    """Messages of the caller's subject, newest first; with ``unread`` only those not read yet."""
    messages: Messages = request.app.state.messages
    last = await messages.get(subject_id, after) if after else None
    if after and last is None:
        raise Problem(ProblemCode.VALIDATION, "after 应为上一页返回的 next，请从第一页重新查询。")
    found = await messages.page(subject_id, unread=unread, after=last, limit=limit + 1)
    shown = [Message.model_validate(document) for document in found[:limit]]
    return MessagePage(messages=shown, next=shown[-1].id if len(found) > limit else None)


@router.post("/messages/{message_id}/read", summary="标为已读")
async def mark_read(request: Request, message_id: str, subject_id: SubjectOfCaller) -> Message:
    """Note that a message was read. Repeating it changes nothing: the first time stays."""
    messages: Messages = request.app.state.messages
    document = await messages.mark_read(subject_id, message_id, datetime.now(UTC))
    if document is None:
        raise Problem(ProblemCode.NOT_FOUND, "没有这条消息，请刷新消息列表。")
    return Message.model_validate(document)
