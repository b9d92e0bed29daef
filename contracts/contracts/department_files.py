"""Batch files between dept-adapter and a department of mode ``files`` (物理归集): folders, names, columns, manifests.

The department's folder, on an SFTP server or shared, holds three folders:

- ``reviews``: what we ask and tell, ``reviews-000001.csv`` (or ``.xlsx``) and so on, numbered without gaps;
- ``decisions``: what the department decided, under any name of letters, digits, ``_``, ``.`` and ``-`` that ends with ``.csv`` or ``.xlsx``;
- ``receipts``: for each of its files ``<name>.ack.json`` (Acknowledgement) and, when something was wrong, ``<name>.errors.csv``.

A batch is one file and has its name: it counts once its manifest ``<name>.manifest.json`` (contracts.batch_files) is there, which is
written last. Whoever writes, writes under
``<name>.part`` first and renames. CSV: RFC 4180 with a header, UTF-8 (with or without BOM) or GB18030. What we write escapes cells that a
spreadsheet would take for a formula with a leading apostrophe; nothing we read is evaluated.
"""

from datetime import datetime

from contracts.batch_files import MANIFEST_SUFFIX, Manifest, ManifestEntry
from contracts.decisions import Outcome
from contracts.records import Shape, Timestamp

REVIEWS_FOLDER = "reviews"
DECISIONS_FOLDER = "decisions"
RECEIPTS_FOLDER = "receipts"
FOLDERS = (REVIEWS_FOLDER, DECISIONS_FOLDER, RECEIPTS_FOLDER)
MANIFEST = MANIFEST_SUFFIX
ACKNOWLEDGEMENT = ".ack.json"
ERRORS = ".errors.csv"

TELLINGS = {"review": "送审", "supplement": "补正", "cancellation": "撤回"}
"""What a row of ours asks: decide on it, go on with what was missing, stop."""

REVIEW_COLUMNS = {
    "telling": "业务类型",
    "item_id": "事项编号",
    "application_id": "申请编号",
    "subject_type": "主体类别",
    "subject_name": "主体名称",
    "subject_code": "主体代码",
    "contact_name": "联系人",
    "contact_phone": "联系电话",
    "record_id": "记录编号",
    "document_number": "决定文书号",
    "authority_name": "认定单位",
    "decided_on": "决定日期",
    "penalty_kinds": "处罚类别",
    "statement": "情况说明",
    "supplement": "补正内容",
    "materials": "材料",
    "accept_due_on": "受理期限",
    "decide_due_on": "决定期限",
}
"""Field -> title of a column of our files."""

DECISION_COLUMNS = {
    "item_id": "事项编号",
    "outcome": "结果",
    "decision_number": "决定文号",
    "reason": "理由",
    "missing": "需补正内容",
    "occurred_at": "办理时间",
}
"""Field -> title of a column of a department's files, in any order; columns of other titles are skipped."""
REQUIRED_COLUMNS = ("item_id", "outcome")

OUTCOME_WORDS = {
    "受理": Outcome.ACCEPTED,
    "不予受理": Outcome.NOT_ACCEPTED,
    "补正": Outcome.SUPPLEMENT_REQUESTED,
    "延期": Outcome.EXTENDED,
    "准予": Outcome.GRANTED,
    "不予": Outcome.REFUSED,
    "撤销": Outcome.REVOKED,
}
"""Words of the column 结果; the codes of Outcome are taken as well."""
ERROR_COLUMNS = ("行号", "事项编号", "原因")
FIRST_ROW = 2
"""Number of the first row below the header, as a spreadsheet counts."""


def manifest_of(
    name: str, content: bytes, rows: int, created_at: datetime, sequence: int | None = None
) -> Manifest:
    """The manifest of a batch that is one file and has its name."""
    entry = ManifestEntry.of(name, content, rows)
    return Manifest(batch_id=name, sequence=sequence, created_at=created_at, files=[entry])


class Acknowledgement(Shape):
    """What came of a department's file: ``rows`` = ``taken`` + ``repeated`` (had taken effect before) + ``refused`` (see ``errors``)."""

    name: str
    sha256: str
    rows: int
    taken: int
    repeated: int
    refused: int
    errors: str | None = None
    taken_at: Timestamp
