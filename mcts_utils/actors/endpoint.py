"""Answer with a chat endpoint of the OpenAI protocol (types.Actor), with all retries and differences between servers.

It builds no conversation, reads no environment variable and does not choose the actor; factory.py does.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import httpx2  # the HTTP client of the openai library
import openai

from mcts_utils.actors.adaptive_limit import AdaptiveLimit
from mcts_utils.actors.answers import OVERFLOW, REPLY_LIMIT, NoAnswer, ReplyLimit, parse_body, said, samples
from mcts_utils.actors.limiter import ConcurrencyLimiter, RequestStats
from mcts_utils.actors.server_profile import ChatRequest, ServerProfile, chat_body
from mcts_utils.actors.transport import better_address, light_client
from mcts_utils.config import MAX_AUTO_CONCURRENCY, without_password
from mcts_utils.patience import ServiceWatch, retry_after
from mcts_utils.types import ActorError, ContextOverflow, EndpointGone, InputError, Message, Sample

ATTEMPTS = 6  # per request
BACK_OFF = 0.5  # seconds before the second attempt, doubled each time, times 0.5 to 1 at random
MAX_PAUSE = 60.0  # seconds, of the back-off and of Retry-After
CHECK_SECONDS = 5.0  # for the answer to the first request
TIMEOUT = openai.Timeout(600.0, connect=5.0)  # a slow server may take long to answer, but not to accept
RETRIED = {408, 409, 425, 429}  # statuses, besides 5xx
OVERLOADED = {429, 503}
AWAY = {"no answer", "429", "502", "503", "504"}  # nobody may be there
PATIENT_PAUSE = 5.0  # seconds between two tries, beyond ATTEMPTS
REFUSED = {400, 413, 422, 500, 501}  # the server may not accept the request's content
UNLISTED = {404, 405, 501}  # from GET /models on servers without it


class EndpointActor:
    """A server of the chat completions protocol. What it does not take is found out once (server_profile.py)."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        max_tokens: int,
        concurrency: int,
        rng: random.Random | None = None,
        sleep: Callable[[float], object] | None = None,
        patience: float = 0.0,
    ) -> None:
        """Make no request yet.

        Args:
            max_tokens: new tokens per reply.
            concurrency: HTTP requests in flight, at most; 0: adapted to the endpoint (adaptive_limit.py).
            rng: jitters the back-off.
            sleep: waits between tries; by default until `close` at the longest.
            patience: seconds for which an endpoint that answers nobody is waited for, beyond ATTEMPTS.
        """
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=TIMEOUT,
            http_client=light_client(base_url),
        )
        base_url = without_password(base_url)  # as it is shown
        self.base_url, self._key, self.model, self.max_tokens = base_url, api_key, model, max_tokens
        self._limiter = ConcurrencyLimiter(concurrency, AdaptiveLimit(MAX_AUTO_CONCURRENCY))
        self._stats = RequestStats()
        self._pool = ThreadPoolExecutor(concurrency or MAX_AUTO_CONCURRENCY, thread_name_prefix="actor")
        self._closed = threading.Event()
        self._rng, self._sleep = rng or random.Random(), sleep or self._closed.wait
        self._profile = ServerProfile(f"{base_url} model {model}")
        self._patience = patience
        self._works = False  # it has answered as a chat endpoint; another body is a gateway's, and may pass
        self._watch = ServiceWatch(f"the endpoint {base_url}", "ENDPOINT_PATIENCE", EndpointGone)

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Return `n` completions as types.Actor says. The first sample of a request carries its prompt tokens.

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            ActorError: one line with base URL, model and the last status; EndpointGone if nobody gets an answer.
        """

        def request(n: int, seed: int | None) -> list[Sample]:
            return self._request(ChatRequest(messages, n, temperature, seed, self.max_tokens))

        if temperature == 0 and n > 1 and not self._profile.refused & {"temperature 0", "temperature"}:
            # All are equal, and vLLM refuses n > 1.
            first = request(1, seed)[0]
            return [first] + [replace(first, prompt_tokens=0, completion_tokens=0, cached_tokens=0)] * (n - 1)
        found = [] if n > 1 and "n" in self._profile.refused else request(n, seed)
        if len(found) < n and n > 1:
            self._profile.learn({"n"})
            seeds = [None if seed is None else seed + i for i in range(len(found), n)]
            for samples in self._pool.map(lambda s: request(1, s), seeds):
                found += samples[:1]
        return found[:n]

    def check(self, tools: str = "") -> None:
        """Check within seconds that the endpoint answers for the model, and takes the tools that are to be called.

        Raises:
            InputError: it does not; naming OPENAI_BASE_URL, OPENAI_API_KEY, MODEL_NAME or ACTIONS.
        """
        request = ChatRequest([Message("user", "Hi", tools=tools)], 1, 0.0, None, 16)
        try:
            if not self._is_listed() or tools:
                self._request(request, attempts=2, patience=0.0)
        except openai.APIStatusError as error:
            raise InputError(self._check_failure(error.status_code, self._text(error))) from None
        except openai.APIConnectionError as error:
            where = f"OPENAI_BASE_URL={self.base_url}"
            raise InputError(f"{where} cannot be reached: {self._text(error)}") from None
        except ActorError as error:
            if tools and "tool" in str(error).lower():
                raise InputError(f"ACTIONS=tools: the endpoint takes no tools: {error}") from None
            status = error.__cause__.status_code if isinstance(error.__cause__, openai.APIStatusError) else 0
            raise InputError(self._check_failure(status, str(error))) from None

    def _is_listed(self) -> bool:
        """Return True if the server lists the model. Not every server lists all its models, or any."""
        try:
            listed = self._client.with_options(timeout=CHECK_SECONDS).models.list()
            return self.model in {model.id for model in listed.data or ()}
        except openai.APIStatusError as error:
            if error.status_code not in UNLISTED:
                raise
        except (openai.APIResponseValidationError, AttributeError, TypeError, ValueError):
            pass  # the answer is not a list of models
        return False

    def stats(self) -> dict[str, Any]:
        """Return counters of all requests since the start; `concurrency` is the present limit of requests in flight."""
        return {**self._stats.stats(), "concurrency": self._limiter.limit, **self._profile.stats()}

    def close(self) -> None:
        """Stop all retries and close the connections."""
        self._closed.set()
        self._limiter.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _request(
        self, request: ChatRequest, attempts: int = ATTEMPTS, patience: float | None = None
    ) -> list[Sample]:
        """Send a request with its retries; return fewer than `n` samples if the server does not support n."""
        patience = self._patience if patience is None else patience
        for attempt in count():
            failure: Exception
            pause = None
            try:
                # An unexplained 500 may pass, so it is tried once more.
                found = self._try(request, guess=attempt > 0)
                self._watch.answered()
                self._works = True
                return found
            except openai.APIStatusError as error:
                failure, status, pause = error, str(error.status_code), retry_after(error.response.headers)
                lasting = error.status_code < 500 and error.status_code not in RETRIED
                if error.status_code in (401, 402) or b"insufficient_quota" in error.response.content:
                    raise EndpointGone(self._failure(status, self._text(error))) from error
            except NoAnswer as error:
                failure, status, lasting = error, error.what, not (error.passing or self._works)
            except openai.APIConnectionError as error:
                failure, status, lasting = error, "no answer", False
            line = self._failure(status, self._text(failure))
            tired = attempt >= attempts - 1
            if lasting or self._ends(status, line, failure, tired, patience) or self._closed.is_set():
                break
            if pause is None:
                pause = BACK_OFF * 2 ** min(attempt, ATTEMPTS) * self._rng.uniform(0.5, 1.0)
                pause = min(pause, PATIENT_PAUSE) if attempt >= ATTEMPTS else pause
            self._sleep(min(MAX_PAUSE, pause))
        raise ActorError(line) from failure

    def _ends(self, status: str, line: str, failure: Exception, tired: bool, patience: float) -> bool:
        """Return True if a request that failed is not sent again; `tired`: it was sent often enough.

        Raises:
            EndpointGone: the endpoint answers nobody.
        """
        if status not in AWAY:
            self._watch.answered()
            return tired
        self._watch.failed(line, patience)
        self._watch.require_alive(failure, patience)
        return tired and not (patience and self._watch.down())

    def _try(self, request: ChatRequest, guess: bool) -> list[Sample]:
        """Send a request; send it again only without what a refusal may mean, which is learned if that succeeds.

        Args:
            guess: a 500 that names nothing may mean n.
        """
        left_out: frozenset[str] = frozenset()
        while True:
            without = self._profile.refused | left_out
            body, used = chat_body(self.model, request, without, self._profile.reasoning_field)
            try:
                answer = parse_body(self._post(body))
                found = samples(answer, 1 if "n" in without else request.n)
                self._profile.note_reasoning(answer, found)
            except (openai.APIStatusError, NoAnswer) as error:
                suspect = self._suspect(error, used, guess)
                if not suspect:
                    raise
                left_out |= {suspect}
                continue
            except RuntimeError as error:  # the client was closed meanwhile
                raise ActorError(self._failure("closed", self._text(error))) from error
            self._profile.learn(left_out)
            self._count(request.messages, found)
            return found

    def _suspect(self, error: openai.APIStatusError | NoAnswer, used: frozenset[str], guess: bool) -> str:
        """Return which of the used features an error may refuse, or "".

        Raises:
            ContextOverflow: it says that the conversation is too long.
            ReplyLimit: it says that MAX_TOKEN_LENGTH is.
        """
        status, text = _refusal(error)
        if status not in REFUSED:
            return ""
        if REPLY_LIMIT.search(text):
            failure = f"{self._failure(status, self._masked(text))} (THINK_TOKENS included)"
            raise ReplyLimit(f"MAX_TOKEN_LENGTH={self.max_tokens} is above the limit of {failure}") from error
        if OVERFLOW.search(text):
            raise ContextOverflow(self._failure(status, self._masked(text))) from error
        unnamed = "n" if "n" in used and (status != 500 or guess) else ""
        return self._profile.suspect(text, used) or unnamed

    def _post(self, body: dict[str, Any]) -> bytes:
        """Send one request within the limit; return the answer's body.

        It uses the client's documented `post`, because the typed models of `chat.completions.create` cost four times
        the CPU time.
        """
        with self._limiter:
            if self._closed.is_set():
                raise ActorError(self._failure("closed", "no more requests"))
            try:
                with self._stats:
                    answer = self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
                self._limiter.answered()
                return answer.content
            except openai.APIStatusError as error:
                if error.status_code in OVERLOADED:
                    pause = retry_after(error.response.headers) or 0.0
                    self._limiter.refused(min(MAX_PAUSE, pause))
                raise

    def _count(self, messages: Sequence[Message], found: Sequence[Sample]) -> None:
        prompt = sum(sample.prompt_tokens for sample in found)
        self._stats.count(prompt, sum(sample.completion_tokens for sample in found))
        self._profile.note_prompt(sum(len(message.content) for message in messages), prompt)

    def _text(self, error: Exception) -> str:
        """Return the error's text on one line, without the API key."""
        if isinstance(error, openai.APIStatusError) and (text := _refusal(error)[1]):
            return self._masked(text)
        return self._masked(str(error) if not error.__cause__ else f"{error} ({error.__cause__})")

    def _masked(self, text: str) -> str:
        """Return a text as it is printed: one line of at most 300 characters, without the API key or a password."""
        # A key as short as a word's part would hide other words, and need not be hidden there.
        bounds = r"\b" if len(self._key) < 8 else ""
        hidden = re.sub(bounds + re.escape(self._key) + bounds, "***", text) if self._key else text
        return " ".join(without_password(hidden).split())[:300]

    def _failure(self, status: int | str, line: str) -> str:
        hint = better_address(self.base_url) if status in ("404", "405", NoAnswer.NO_ENDPOINT) else ""
        return f"{self.base_url} model {self.model}: {status}{hint}: {line}"

    def _check_failure(self, status: int, line: str) -> str:
        """Return the message of a failed `check`, which names the variable that is the likely cause."""
        if status in (401, 403):
            return f"OPENAI_API_KEY is not accepted by {self.base_url}: {line}"
        if status == 404:
            what = f"MODEL_NAME={self.model} or OPENAI_BASE_URL={self.base_url} is not known there"
        else:
            what = f"OPENAI_BASE_URL={self.base_url} does not answer as a chat endpoint"
        return f"{what}: {line}" if "; try " in line else f"{what}{better_address(self.base_url)}: {line}"


def _refusal(error: openai.APIStatusError | NoAnswer) -> tuple[int, str]:
    """Return the status and the whole text of a refusal; an error that comes with status 200 counts as a 400."""
    if isinstance(error, NoAnswer):
        return error.status, str(error)
    return error.status_code, said(parse_body(error.response.content))
