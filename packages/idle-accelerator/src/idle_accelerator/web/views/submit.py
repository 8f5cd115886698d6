"""A new job: one form, every refusal at once and in the viewer's words, then on to the job's page."""

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from idle_accelerator.sdk.submission import JobOptions
from idle_accelerator.web import UPLOAD_LIMIT_MIB, faults, form, plain, pool
from idle_accelerator.web.language import say
from idle_accelerator.web.opening import open_job
from idle_accelerator.wire.ids import MAX_TASKS
from idle_accelerator.wire.texts import check_workspace_path

_SYSTEMS = ("linux", "macos", "windows")
_SENT = "submit.sent"


class _Sent:
    """What this form has made since it was shown: a job for each fingerprint of what was typed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.job_ids: dict[str, str] = {}


def fields() -> dict[str, Any]:
    """The form's widgets; returns what was typed."""
    typed: dict[str, Any] = {}
    typed["command"] = st.text_area(
        say("submit.command"),
        placeholder="python3 -c 'print(6*7)'",
        help=say("submit.command_help"),
        height=90,
        key="submit.command",
    )
    name, array, cpus, memory = st.columns([3, 1, 1, 1])
    typed["name"] = name.text_input(say("submit.name"), max_chars=200, key="submit.name")
    typed["array"] = array.number_input(
        say("submit.array"), 1, MAX_TASKS, 1, help=say("submit.array_help"), key="submit.array"
    )
    typed["cpus"] = cpus.number_input(say("submit.cpus"), 0.01, 4096.0, 1.0, 1.0, key="submit.cpus")
    typed["memory"] = memory.text_input(
        say("submit.memory"), placeholder="1G", help=say("submit.amount_help"), key="submit.memory"
    )
    files, globs = st.columns(2)
    typed["inputs"] = files.file_uploader(
        say("submit.inputs"),
        accept_multiple_files=True,
        help=say("submit.inputs_help", limit=UPLOAD_LIMIT_MIB),
        key="submit.inputs",
    )
    typed["outputs"] = globs.text_area(
        say("submit.outputs"), placeholder="out/*.png", help=say("submit.outputs_help"), key="submit.outputs"
    )
    timeout, retries, priority = st.columns(3)
    typed["timeout"] = timeout.text_input(
        say("submit.timeout"), placeholder="10m", help=say("submit.timeout_help"), key="submit.timeout"
    )
    typed["retries"] = retries.number_input(
        say("submit.retries"), 0, 1000, 0, help=say("submit.retries_help"), key="submit.retries"
    )
    typed["priority"] = priority.number_input(
        say("submit.priority"), -1000, 1000, 0, help=say("submit.priority_help"), key="submit.priority"
    )
    with st.expander(say("submit.more")):
        more(typed)
    return typed


def more(typed: dict[str, Any]) -> None:
    env, labels = st.columns(2)
    typed["env"] = env.text_area(
        say("submit.env"), placeholder="SEED=7", help=say("submit.env_help"), key="submit.env"
    )
    typed["labels"] = labels.text_area(
        say("submit.labels"), placeholder="room=lab", help=say("submit.labels_help"), key="submit.labels"
    )
    disk, gpus, system, node = st.columns(4)
    anything = say("submit.any")
    typed["disk"] = disk.text_input(
        say("submit.disk"), placeholder="10G", help=say("submit.amount_help"), key="submit.disk"
    )
    typed["gpus"] = gpus.number_input(say("submit.gpus"), 0, 1024, 0, key="submit.gpus")
    typed["os"] = system.selectbox(
        say("submit.os"), ("", *_SYSTEMS), format_func=lambda name: name or anything, key="submit.os"
    )
    typed["node"] = node.text_input(say("submit.node"), help=say("submit.node_help"), key="submit.node")


def read(typed: dict[str, Any]) -> tuple[list[str], int, JobOptions]:
    """Command, number of tasks and options, without the input files. Raises FormError for the first thing that is wrong."""
    command = form.parse_command(typed["command"])
    options: JobOptions = {
        "name": typed["name"].strip(),
        "cpus": float(typed["cpus"]),
        "memory": form.parse_amount(typed["memory"], field="memory"),
        "outputs": form.parse_lines(typed["outputs"]),
        "timeout": form.parse_timeout(typed["timeout"]),
        "retries": int(typed["retries"]),
        "priority": int(typed["priority"]),
        "env": form.parse_pairs(typed["env"], field="env", example="SEED=7"),
        "labels": form.parse_pairs(typed["labels"], field="labels", example="room=lab"),
        "disk": form.parse_amount(typed["disk"], field="disk"),
        "gpus": int(typed["gpus"]),
        "os": typed["os"] or None,
        "node": typed["node"].strip() or None,
    }
    return command, int(typed["array"]), options


def check_files(uploads: Sequence[UploadedFile]) -> None:
    """Names come from the viewer's machine. Raises FormError for one that may not stand in a workspace, or stands twice."""
    seen: set[str] = set()
    for upload in uploads:
        shown = plain.line(upload.name)
        try:
            check_workspace_path(upload.name)
        except ValueError as error:
            raise form.FormError("submit.bad_name", field="inputs", name=shown) from error
        if "/" in upload.name:
            raise form.FormError("submit.bad_name", field="inputs", name=shown)
        if upload.name in seen:
            raise form.FormError("submit.same_name", field="inputs", name=shown)
        seen.add(upload.name)


def send(command: list[str], array: int, options: JobOptions, uploads: Sequence[UploadedFile]) -> str:
    """The id of the new job. Uploads pass through files named by number, never by the name that they came with."""
    with tempfile.TemporaryDirectory(prefix="idle-submit-") as folder:
        inputs: dict[str, str] = {}
        for number, upload in enumerate(uploads):
            path = Path(folder, str(number))
            path.write_bytes(upload.getbuffer())
            inputs[upload.name] = str(path)
        options["inputs"] = inputs
        return pool.submit(command, array=array, options=options)


def submit(typed: dict[str, Any]) -> str | None:
    """The job's id, or None after what is wrong was shown. A double click makes one job."""
    uploads: list[UploadedFile] = typed["inputs"]
    fingerprint = repr(
        (sorted((name, repr(value)) for name, value in typed.items() if name != "inputs"), uploads)
    )
    # A plain object: a second click begins another run at once, beside this one, which ends at its next call into Streamlit.
    sent: _Sent = st.session_state.setdefault(_SENT, _Sent())
    with faults.shown(), st.spinner(say("submit.sending")), sent.lock:
        if fingerprint not in sent.job_ids:
            command, array, options = read(typed)
            check_files(uploads)
            sent.job_ids[fingerprint] = send(command, array, options, uploads)
        return sent.job_ids[fingerprint]
    return None


def show() -> None:
    st.title(say("page.submit"), anchor=False)
    with st.form("submit", enter_to_submit=False, border=False):
        typed = fields()
        pressed = st.form_submit_button(say("submit.go"), type="primary", icon=":material/send:")
    if not pressed:
        # The form stands here anew: the same once more is another job. Between two clicks of a double one it does not.
        st.session_state.pop(_SENT, None)
    else:
        job_id = submit(typed)
        if job_id is not None:
            st.toast(say("job.submitted", job_id=job_id), icon=":material/check:")
            open_job(job_id)


show()
