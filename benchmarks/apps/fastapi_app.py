"""The job as a FastAPI application with a thread pool, as people write it by hand: no batches."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import job
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()
pool = ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0)))
handler = job.load()


@app.post("/predict")
async def predict(request: Request) -> Response:
    """One body in, one answer out; the event loop stays free while the handler computes."""
    body = await request.body()
    answers = await asyncio.get_running_loop().run_in_executor(pool, handler.run, [body])
    return Response(job.encode(answers[0]), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=job.PORT, log_level="warning")
