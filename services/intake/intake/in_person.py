"""Pure: what a subject may write about records that are handed over in person (不经系统): nothing but the agreed words."""

from collections.abc import Collection

from chassis.problems import Problem
from contracts.errors import ProblemCode
from contracts.records import IN_PERSON, RecordFacts


def check(records: Collection[RecordFacts], words: str, material_ids: Collection[str]) -> None:
    """Raises Problem VALIDATION for words or materials with such a record, and for one that is chosen together with others."""
    marked = [record.document_number for record in records if record.in_person]
    if not marked:
        return
    told = f"{'、'.join(marked)}不经平台办理，请不要在平台上填写或上传其内容："
    if len(marked) < len(records):
        raise Problem(ProblemCode.VALIDATION, f"{told}请与其他记录分开申请。", record_numbers=marked)
    if words != IN_PERSON or material_ids:
        raise Problem(
            ProblemCode.VALIDATION,
            f"{told}文字只填“{IN_PERSON}”，不附材料；说明和材料凭编号当面交给认定单位。",
            record_numbers=marked,
        )
