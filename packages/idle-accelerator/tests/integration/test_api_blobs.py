"""Blobs over HTTP: by digest, verified, in ranges."""

import os
import socket
from collections.abc import Callable

import httpx2
import pytest
from conftest import SchedulerProcess
from pool_builders import UserClient, digest_of

from idle_accelerator.wire.model import ErrorBody

CONTENT = os.urandom(300_000)
DIGEST = digest_of(CONTENT)


@pytest.fixture
def user(scheduler_process: SchedulerProcess) -> UserClient:
    return UserClient(scheduler_process.url)


def kept(process: SchedulerProcess) -> set[str]:
    return {path.name for path in (process.data_dir / "blobs").rglob("*") if path.is_file()}


def test_a_blob_is_kept_once_and_served_whole_and_in_ranges(
    user: UserClient, scheduler_process: SchedulerProcess
) -> None:
    address = f"/v1/blobs/{DIGEST}"
    assert user.http.put(address, content=CONTENT).status_code == 201
    assert user.http.put(address, content=CONTENT).status_code == 200
    assert kept(scheduler_process) == {DIGEST}
    whole = user.http.get(address)
    assert whole.content == CONTENT
    assert whole.headers["etag"] == f'"{DIGEST}"'
    head = user.http.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))
    assert head.headers["accept-ranges"] == "bytes"
    for given, start, end in (
        ("bytes=10-19", 10, 20),
        ("bytes=-5", -5, None),
        ("bytes=299990-", 299_990, None),
    ):
        part = user.http.get(address, headers={"Range": given})
        assert part.status_code == 206
        assert part.content == CONTENT[start:end]
    resumed = user.http.get(address, headers={"Range": "bytes=10-19", "If-Range": f'"{DIGEST}"'})
    assert resumed.status_code == 206
    changed = user.http.get(address, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert changed.content == CONTENT


@pytest.mark.parametrize(
    ("given", "status"), [("bytes=300000-", 416), ("bytes=x-y", 400), ("lines=1-2", 400)]
)
def test_a_range_that_cannot_be_served_is_an_error_of_the_one_shape(
    user: UserClient, given: str, status: int
) -> None:
    user.http.put(f"/v1/blobs/{DIGEST}", content=CONTENT)
    response = user.http.get(f"/v1/blobs/{DIGEST}", headers={"Range": given})
    assert response.status_code == status
    error = ErrorBody.model_validate_json(response.content)
    assert error.field == "Range"
    if status == 416:
        assert response.headers["content-range"] == "bytes */300000"


def test_who_asks_hears_which_blobs_are_missing(user: UserClient) -> None:
    user.http.put(f"/v1/blobs/{DIGEST}", content=CONTENT)
    others = [digest_of(b"one"), digest_of(b"two")]
    asked = {"digests": [others[1], DIGEST, others[0], others[1]]}
    assert user.http.post("/v1/blobs/missing", json=asked).json() == {"digests": [others[1], others[0]]}
    for wrong in ({"digests": ["../secret"]}, {"digests": 1}, {}):
        assert user.http.post("/v1/blobs/missing", json=wrong).status_code == 422
    many = {"digests": [DIGEST] * 50_001}
    assert user.http.post("/v1/blobs/missing", json=many).status_code == 422


def test_an_empty_blob_is_a_blob(user: UserClient) -> None:
    address = f"/v1/blobs/{digest_of(b'')}"
    assert user.http.put(address, content=b"").status_code == 201
    assert user.http.get(address).content == b""


def test_a_wrong_digest_is_refused_and_nothing_kept(
    user: UserClient, scheduler_process: SchedulerProcess
) -> None:
    response = user.http.put(f"/v1/blobs/{digest_of(b'other')}", content=CONTENT)
    error = ErrorBody.model_validate_json(response.content)
    assert (response.status_code, error.field) == (422, "digest")
    assert kept(scheduler_process) == set()
    assert user.http.head(f"/v1/blobs/{digest_of(b'other')}").status_code == 404


def test_an_upload_without_a_size_is_refused(user: UserClient) -> None:
    response = user.http.put(f"/v1/blobs/{DIGEST}", content=iter([CONTENT]))
    error = ErrorBody.model_validate_json(response.content)
    assert (response.status_code, error.field) == (422, "Content-Length")


def test_an_upload_that_breaks_off_leaves_nothing_and_is_no_defect(
    user: UserClient, scheduler_process: SchedulerProcess
) -> None:
    with socket.create_connection(("127.0.0.1", scheduler_process.port)) as line:
        line.sendall(
            f"PUT /v1/blobs/{DIGEST} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
        )
        line.sendall(CONTENT[:1000])
        while not kept(scheduler_process):
            assert user.http.get("/healthz").status_code == 200
    while kept(scheduler_process):
        assert user.http.get("/healthz").status_code == 200
    assert user.http.put(f"/v1/blobs/{DIGEST}", content=CONTENT).status_code == 201
    assert "Traceback" not in scheduler_process.log()


def test_many_uploads_of_the_same_at_once_all_succeed(scheduler_process: SchedulerProcess) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def put(_number: int) -> int:
        return httpx2.put(f"{scheduler_process.url}/v1/blobs/{DIGEST}", content=CONTENT).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(put, range(16)))
    assert set(statuses) <= {200, 201}
    assert 201 in statuses
    assert kept(scheduler_process) == {DIGEST}


def test_a_second_scheduler_does_not_touch_the_uploads_of_the_first(
    scheduler_process: SchedulerProcess, start_scheduler: Callable[..., SchedulerProcess]
) -> None:
    with socket.create_connection(("127.0.0.1", scheduler_process.port)) as line:
        line.sendall(
            f"PUT /v1/blobs/{DIGEST} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode()
        )
        line.sendall(CONTENT[:1000])
        while not kept(scheduler_process):
            assert httpx2.get(f"{scheduler_process.url}/healthz").status_code == 200
        with pytest.raises(AssertionError, match="another scheduler has the data directory"):
            start_scheduler(scheduler_process.data_dir)
        line.sendall(CONTENT[1000:])
        assert line.recv(100).startswith(b"HTTP/1.1 201")
