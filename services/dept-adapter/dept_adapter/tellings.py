"""What a department's system is told of a review: decide on it (again, with what was missing), or stop."""

from contracts.http.department import ReviewCancellation, ReviewSubmission
from contracts.http.intake import Case
from dept_adapter.domain import Review


def submission(review: Review, case: Case, callback_url: str) -> ReviewSubmission:
    """The review with its applicant's side, as every system of a department gets it."""
    return ReviewSubmission(
        item_id=review.item_id,
        application_id=review.application_id,
        department_code=review.department.code,
        subject=case.subject,
        contact=case.contact,
        record=review.record,
        statement=case.statement,
        materials=case.materials,
        supplement=case.supplements.get(review.item_id),
        supplement_material_ids=case.supplement_materials.get(review.item_id, ()),
        commitment=case.commitment,
        accept_due_on=review.accept_due_on,
        decide_due_on=review.decide_due_on,
        due_provisional=review.missing_year is not None,
        callback_url=callback_url,
    )


def cancellation(review: Review) -> ReviewCancellation:
    """Nothing is left to decide."""
    return ReviewCancellation(
        item_id=review.item_id,
        application_id=review.application_id,
        department_code=review.department.code,
    )
