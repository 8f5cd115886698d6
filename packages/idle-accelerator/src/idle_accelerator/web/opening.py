"""Going to a job's page."""

from typing import NoReturn

import streamlit as st

from idle_accelerator.web.language import current

_CHOSEN = "opening.job"


def remember_job(job_id: str) -> None:
    """For callbacks, which may not leave the page themselves; ``open_chosen_job`` goes there."""
    st.session_state[_CHOSEN] = job_id


def open_chosen_job() -> None:
    job_id = st.session_state.pop(_CHOSEN, None)
    if job_id is not None:
        open_job(job_id)


def open_job(job_id: str) -> NoReturn:
    st.switch_page("views/job.py", query_params={"job": job_id, "lang": current()})
