"""Answer with a chat endpoint of the OpenAI protocol (types.Actor), with all retries and differences between servers.

It builds no conversation, reads no environment variable and does not choose the actor; factory.py does.
"""

from __future__ import annotations

import email.utils
import random
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from mcts_utils.actors.adaptive_limit import AdaptiveLimit
from mcts_utils.actors.limiter import ConcurrencyLimiter, RequestStats
from mcts_utils.actors.transport import PooledTransport
from mcts_utils.config import MAX_AUTO_CONCURRENCY
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message, Sample

ATTEMPTS = 6  # per request
BACK_OFF = 0.5  # seconds before the second attempt, doubled each time, times 0.5 to 1 at random
MAX_PAUSE = 60.0  # seconds, of the back-off and of Retry-After
CHECK_SECONDS = 5.0  # for the answer to the first request
TIMEOUT = openai.Timeout(600.0, connect=5.0)  # a slow server may take long to answer, but not to accept
RETRIED = {408, 409, 425, 429}  # statuses, besides 5xx
OVERLOADED = {429, 503}
REFUSED = {400, 413, 422, 501}  # the server does not accept the request's content
UNLISTED = {404, 405, 501}  # from GET /models on servers without it
OVERFLOW = (  # texts of errors for conversations that are too long
    "context length",
    "context_length",
    "context window",
    "context size",
    "maximum context",
    "prompt is too long",
)


class EndpointActor:
    """A server of the chat completions protocol. Parameters that it does not support (n, seed) are found out once."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        model: str,
        max_tokens: int,
        concurrency: int,
        rng: random.Random | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Make no request yet.

        Args:
            max_tokens: new tokens per reply.
            concurrency: HTTP requests in flight, at most; 0: adapted to the endpoint (adaptive_limit.py).
            rng: jitters the back-off.
            sleep: waits between tries; by default until `close` at the longest.
        """
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=TIMEOUT,
            http_client=light_client(base_url),
        )
        self.base_url, self._key, self.model, self.max_tokens = base_url, api_key, model, max_tokens
        self._limiter = ConcurrencyLimiter(concurrency, AdaptiveLimit(MAX_AUTO_CONCURRENCY))
        self._stats = RequestStats()
        self._pool = ThreadPoolExecutor(concurrency or MAX_AUTO_CONCURRENCY, thread_name_prefix="actor")
        self._closed = threading.Event()
        self._rng, self._sleep = rng or random.Random(), sleep or self._closed.wait
        self._single = False  # the server gives one choice for any n
        self._takes_seed = True
        self._limit_name = "max_tokens"  # newer OpenAI models call it max_completion_tokens

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Return `n` completions as types.Actor says. The first sample of a request carries its prompt tokens.

        Raises:
            ContextOverflow: the server says that the conversation is too long.
            ActorError: one line with base URL, model and the last status.
        """
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if temperature == 0 and n > 1:  # all are equal, and vLLM refuses n > 1
            first = self._request(turns, 1, temperature, seed)[0]
            return [first] + [Sample(first.text, truncated=first.truncated)] * (n - 1)
        found = [] if self._single and n > 1 else self._request(turns, n, temperature, seed)
        if len(found) < n and n > 1:
            self._single = True
            rest = range(len(found), n)
            seeds = [None if seed is None else seed + i for i in rest]
            for samples in self._pool.map(lambda s: self._request(turns, 1, temperature, s), seeds):
                found += samples[:1]
        return found[:n]

    def check(self) -> None:
        """Check within seconds that the endpoint answers for the model.

        Raises:
            InputError: it does not; naming OPENAI_BASE_URL, OPENAI_API_KEY or MODEL_NAME.
        """
        try:
            if not self._is_listed():
                self._request([{"role": "user", "content": "Hi"}], 1, 0.0, None, attempts=2, limit=16)
        except openai.APIStatusError as error:
            raise InputError(self._check_failure(error.status_code, self._text(error))) from None
        except openai.APIConnectionError as error:
            line = f"OPENAI_BASE_URL={self.base_url} cannot be reached: {self._text(error)}"
            raise InputError(line) from None
        except ActorError as error:
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

    def stats(self) -> dict[str, float]:
        """Return counters of all requests since the start; `concurrency` is the present limit of requests in flight."""
        return {**self._stats.stats(), "concurrency": self._limiter.limit}

    def close(self) -> None:
        """Stop all retries and close the connections."""
        self._closed.set()
        self._limiter.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _request(
        self,
        turns: list[dict],
        n: int,
        temperature: float,
        seed: int | None,
        attempts: int = ATTEMPTS,
        limit: int = 0,
    ) -> list[Sample]:
        """Send a request with its retries; return fewer than `n` samples, or none, if the server does not support n."""
        for attempt in range(attempts):
            failure: Exception
            pause = None
            try:
                return self._try(turns, n, temperature, seed, limit or self.max_tokens)
            except openai.APIStatusError as error:
                failure, status, pause = error, str(error.status_code), retry_after(error.response.headers)
                lasting = error.status_code < 500 and error.status_code not in RETRIED
                lasting = lasting or "insufficient_quota" in str(error)
            except (openai.APIConnectionError, openai.APIResponseValidationError, ValueError) as error:
                failure, status, lasting = error, "no answer", False  # ValueError: not JSON, or no choices
            if lasting or attempt == attempts - 1:
                break
            if pause is None:
                pause = BACK_OFF * 2**attempt * self._rng.uniform(0.5, 1.0)
            self._sleep(min(MAX_PAUSE, pause))
        raise ActorError(self._failure(status, self._text(failure))) from failure

    def _try(
        self, turns: list[dict], n: int, temperature: float, seed: int | None, limit: int
    ) -> list[Sample]:
        """Send a request; send it again only without a parameter that the server does not know. Raises openai's errors.

        It uses the client's documented `post`, because the typed models of `chat.completions.create` cost four times
        the CPU time.
        """
        while True:
            if self._closed.is_set():
                raise ActorError(self._failure("closed", "no more requests"))
            optional: dict[str, Any] = {self._limit_name: limit}
            body = {"model": self.model, "messages": turns, "temperature": temperature}
            if seed is not None and self._takes_seed:
                optional["seed"] = seed
            if n > 1:
                optional["n"] = n
            try:
                answer = self._post(body | optional)
                return self._samples(answer)
            except openai.APIStatusError as error:
                text = self._text(error)
                if error.status_code not in REFUSED:
                    raise
                if any(words in text.lower() for words in OVERFLOW):
                    raise ContextOverflow(self._failure(error.status_code, text)) from error
                if not self._adapt(text.lower(), optional):
                    if n > 1:
                        return []
                    raise
            except RuntimeError as error:  # the client was closed meanwhile
                raise ActorError(self._failure("closed", self._text(error))) from error

    def _post(self, body: dict) -> Any:
        """Send one request within the limit; return the answer."""
        with self._limiter:
            if self._closed.is_set():
                raise ActorError(self._failure("closed", "no more requests"))
            try:
                with self._stats:
                    answer = self._client.post("/chat/completions", body=body, cast_to=object)
                self._limiter.answered()
                return answer
            except openai.APIStatusError as error:
                if error.status_code in OVERLOADED:
                    pause = retry_after(error.response.headers) or 0.0
                    self._limiter.refused(min(MAX_PAUSE, pause))
                raise

    def _adapt(self, refusal: str, optional: dict) -> bool:
        """Drop or rename the parameter that a refusal names; return True if the next request differs."""
        if "max_completion_tokens" in refusal and "max_tokens" in optional:
            self._limit_name = "max_completion_tokens"
            return True
        if "seed" in refusal and "seed" in optional:
            self._takes_seed = False
            return True
        return False

    def _samples(self, answer: Any) -> list[Sample]:
        """Return the choices as samples; raise ValueError if there are none, as some proxies answer errors with 200."""
        body = answer if isinstance(answer, dict) else {}
        choices = body.get("choices")
        if not choices:
            raise ValueError(f"an answer without choices: {str(body.get('error', answer))[:200]}")
        usage = body.get("usage") or {}
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        self._stats.count(prompt, completion)
        share, rest = divmod(completion, len(choices))
        return [
            Sample(
                choice["message"].get("content") or "",
                0 if i else prompt,
                share + (i < rest),
                choice.get("finish_reason") == "length",
            )
            for i, choice in enumerate(choices)
        ]

    def _text(self, error: Exception) -> str:
        """Return the error's text on one line, without the API key."""
        text = str(error) if not error.__cause__ else f"{error} ({error.__cause__})"
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]

    def _failure(self, status: int | str, line: str) -> str:
        return f"{self.base_url} model {self.model}: {status}: {line}"

    def _check_failure(self, status: int, line: str) -> str:
        """Return the message of a failed `check`, which names the variable that is the likely cause."""
        if status in (401, 403):
            return f"OPENAI_API_KEY is not accepted by {self.base_url}: {line}"
        if status == 404:
            return f"MODEL_NAME={self.model} or OPENAI_BASE_URL={self.base_url} is not known there: {line}"
        return f"OPENAI_BASE_URL={self.base_url} does not answer as a chat endpoint: {line}"


def light_client(base_url: str) -> Any:
    """Return a client over PooledTransport for plain HTTP without a proxy; else None, for the library's own one."""
    url = urllib.parse.urlsplit(base_url)
    proxied = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(url.netloc)
    if url.scheme != "http" or proxied:
        return None
    return openai.DefaultHttpxClient(transport=PooledTransport(base_url))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date), or None if there is no valid one."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
