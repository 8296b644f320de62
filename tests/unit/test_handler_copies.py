"""What each of a worker's threads gets of a handler: the model is shared, what belongs to one call at a time is not."""

import copy
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("numpy")

from mlserve.handlers import hf_tasks, loading, runtimes
from mlserve.handlers.audio import AudioHandler
from mlserve.handlers.auto import ModelHandler
from mlserve.handlers.embedding import EmbeddingHandler
from mlserve.handlers.llm import LlmHandler
from mlserve.handlers.misfits import KEPT, Misfits
from mlserve.handlers.question_answering import QuestionAnswering
from mlserve.handlers.signature import Signature, Tensor


class Tokenizer:
    is_fast, settings = True, None


@pytest.mark.parametrize("kind", [EmbeddingHandler, LlmHandler, lambda: QuestionAnswering(object(), Tokenizer(), None)])
def test_no_thread_changes_the_tokenizer_of_another(kind):
    handler = kind()
    handler.model, handler.tokenizer = object(), Tokenizer()
    made = copy.copy(handler)
    assert made.tokenizer is not handler.tokenizer
    assert isinstance(made.tokenizer, Tokenizer)
    assert made.model is handler.model


@pytest.mark.parametrize("kind", [hf_tasks.TextClassification, hf_tasks.TokenClassification, hf_tasks.TextGeneration])
def test_a_pipeline_s_copy_reads_and_runs_with_the_same_tokenizer(kind):
    tokenizer = Tokenizer()
    task = kind(SimpleNamespace(tokenizer=tokenizer, model=object()), hf_tasks.Texts(tokenizer, 8, False))
    made = copy.copy(task)
    assert made.pipe.tokenizer is made.texts.tokenizer
    assert made.pipe.tokenizer is not tokenizer
    assert task.pipe.tokenizer is task.texts.tokenizer is tokenizer
    assert made.pipe.model is task.pipe.model


def test_the_state_of_a_recurrent_model_is_that_of_a_thread():
    class Script:
        parameters = None

        def __init__(self):
            self.state = [0]

    handler = AudioHandler()
    handler.model = Script()
    made = copy.copy(handler)
    made.model.state[0] = 1
    assert handler.model.state == [0]


def test_a_copied_handler_has_a_copy_of_its_runtime_and_the_same_memory_of_shapes():
    class Handler(ModelHandler):
        pass

    handler = Handler()
    handler.runtime, handler.misfits = SimpleNamespace(request=object()), object()
    made = copy.copy(handler)
    assert type(made) is Handler
    assert made.runtime is not handler.runtime
    assert made.misfits is handler.misfits


def test_threads_that_answer_new_shapes_do_not_break_what_is_kept_of_them():
    misfits = Misfits("m", SimpleNamespace(signature=Signature((Tensor("x"),), ())))
    failed = []

    def answered(first):
        try:
            for size in range(first, first + 3 * KEPT):
                misfits.answered(SimpleNamespace(arrays={"x": SimpleNamespace(shape=(1, size), dtype=KIND)}))
        except Exception as error:  # the thread would end with it unseen
            failed.append(error)

    threads = [threading.Thread(target=answered, args=(first,)) for first in (0, 10**6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(misfits._answered) == KEPT


KIND = SimpleNamespace(name="float32")


@pytest.mark.parametrize(("threads", "batches", "wanted"), [(2, 1, 2), (1, 2, 1), (4, 2, 7)])
def test_a_session_has_no_more_threads_than_the_worker_has_cpus(threads, batches, wanted):
    assert runtimes.session_threads(threads, batches) == wanted
    assert wanted - 1 + batches == threads * batches  # those of the session, and those that bring the batches


def test_the_compiler_s_cuda_graphs_are_refused_beside_threads(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"handlerThreads is 2, but pt2 .* mode reduce-overhead"):
        loading.check_mode({"mode": "reduce-overhead"}, 2)
    loading.check_mode({"mode": "reduce-overhead"}, 1)
    loading.check_mode({"mode": "default"}, 2)
    loading.check_mode(None, 2)
