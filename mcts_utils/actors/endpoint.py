"""A chat endpoint of the OpenAI protocol as an actor (types.Actor). Its quirks and every retry live here.

It builds no conversation, reads no environment variable, and does not choose the actor: actor.py does.
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

import httpx2  # what the openai library is made with
import openai

from mcts_utils.actors.adaptive_limit import AdaptiveLimit
from mcts_utils.actors.limiter import ConcurrencyLimiter, RequestStats
from mcts_utils.config import AUTO_MOST
from mcts_utils.envs.wire import Transport
from mcts_utils.types import ActorError, ContextOverflow, InputError, Message, Sample

ATTEMPTS = 6  # per request
BACK_OFF = 0.5  # seconds before the second attempt, doubled each time, times 0.5 to 1 at random
KEEP_ALIVE = 4.0  # seconds that an idle connection is trusted; uvicorn, under many servers, closes it after 5
LONGEST_WAIT = 60.0  # seconds; caps the back-off and what Retry-After may ask for
CHECK_SECONDS = 5.0  # for the first contact
TIMEOUT = openai.Timeout(600.0, connect=5.0)  # a slow server may think long, but it must accept at once
RETRIED = {408, 409, 425, 429}  # besides 5xx
OVERLOADED = {429, 503}
REFUSED = {400, 413, 422, 501}  # the request itself is not liked
UNLISTED = {404, 405, 501}  # answers to GET /models of servers that do not have it
OVERFLOW = (
    "context length",
    "context_length",
    "context window",
    "context size",
    "maximum context",
    "prompt is too long",
)


class EndpointActor:
    """Any server of the chat completions protocol. What it does not do (n, seed, max_tokens) is learned once."""

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
        """`max_tokens`: new tokens per reply. `rng` jitters the back-off.

        `concurrency`: HTTP requests in flight; 0: as many as make the answers come faster (pacing.py).
        """
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=TIMEOUT,
            http_client=light_client(base_url),
        )
        self.base_url, self._key, self.model, self.max_tokens = base_url, api_key, model, max_tokens
        self._gate, self._meter = ConcurrencyLimiter(concurrency, AdaptiveLimit(AUTO_MOST)), RequestStats()
        self._pool = ThreadPoolExecutor(concurrency or AUTO_MOST, thread_name_prefix="actor")
        self._closed = threading.Event()
        self._rng, self._sleep = rng or random.Random(), sleep or self._closed.wait
        self._single = False  # the server gives one choice, whatever n says
        self._takes_seed = True
        self._limit_name = "max_tokens"  # newer OpenAI models call it max_completion_tokens

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """See types.Actor. A request's prompt tokens are on its first sample only.

        Raises:
            ContextOverflow: when the server says that the conversation is too long.
            ActorError: one line with base URL, model and the last status.
        """
        turns = [{"role": m.role, "content": m.content} for m in messages]
        if temperature == 0 and n > 1:  # all the same, and vLLM refuses n > 1 there
            first = self._ask(turns, 1, temperature, seed)[0]
            return [first] + [Sample(first.text, truncated=first.truncated)] * (n - 1)
        found = [] if self._single and n > 1 else self._ask(turns, n, temperature, seed)
        if len(found) < n and n > 1:
            self._single = True
            rest = range(len(found), n)
            seeds = [None if seed is None else seed + i for i in rest]
            for samples in self._pool.map(lambda s: self._ask(turns, 1, temperature, s), seeds):
                found += samples[:1]
        return found[:n]

    def check(self) -> None:
        """Make first contact, within seconds.

        Raises:
            InputError: naming OPENAI_BASE_URL, OPENAI_API_KEY or MODEL_NAME.
        """
        try:
            if not self._listed():
                self._ask([{"role": "user", "content": "Hi"}], 1, 0.0, None, attempts=2, limit=16)
        except openai.APIStatusError as error:
            raise InputError(self._complaint(error.status_code, self._line(error))) from None
        except openai.APIConnectionError as error:
            line = f"OPENAI_BASE_URL={self.base_url} cannot be reached: {self._line(error)}"
            raise InputError(line) from None
        except ActorError as error:
            status = error.__cause__.status_code if isinstance(error.__cause__, openai.APIStatusError) else 0
            raise InputError(self._complaint(status, str(error))) from None

    def _listed(self) -> bool:
        """True if the server lists the model. Not every server lists its models, or lists them all."""
        try:
            listed = self._client.with_options(timeout=CHECK_SECONDS).models.list()
            return self.model in {model.id for model in listed.data or ()}
        except openai.APIStatusError as error:
            if error.status_code not in UNLISTED:
                raise
        except (openai.APIResponseValidationError, AttributeError, TypeError, ValueError):
            pass  # something answered, but not a list of models
        return False

    def stats(self) -> dict[str, float]:
        """Counters of all requests since the start."""
        return {**self._meter.stats(), "concurrency": self._gate.limit}

    def close(self) -> None:
        """Stop retrying, drop the connections."""
        self._closed.set()
        self._gate.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _ask(
        self,
        turns: list[dict],
        n: int,
        temperature: float,
        seed: int | None,
        attempts: int = ATTEMPTS,
        limit: int = 0,
    ) -> list[Sample]:
        """One request with its retries; fewer than `n` samples (or none) from a server that does not do `n`."""
        for attempt in range(attempts):
            failure: Exception
            wait = None
            try:
                return self._once(turns, n, temperature, seed, limit or self.max_tokens)
            except openai.APIStatusError as error:
                failure, status, wait = error, str(error.status_code), retry_after(error.response.headers)
                lasting = error.status_code < 500 and error.status_code not in RETRIED
                lasting = lasting or "insufficient_quota" in str(error)
            except (openai.APIConnectionError, openai.APIResponseValidationError, ValueError) as error:
                failure, status, lasting = error, "no answer", False  # ValueError: not JSON, or no choices
            if lasting or attempt == attempts - 1:
                break
            pause = BACK_OFF * 2**attempt * self._rng.uniform(0.5, 1.0) if wait is None else wait
            self._sleep(min(LONGEST_WAIT, pause))
        raise ActorError(self._blame(status, self._line(failure))) from failure

    def _once(
        self, turns: list[dict], n: int, temperature: float, seed: int | None, limit: int
    ) -> list[Sample]:
        """One request, repeated only without what the server names as unknown. Raises openai's errors.

        It is the client's documented `post`, not `chat.completions.create`, whose typed models cost four times the CPU.
        """
        while True:
            if self._closed.is_set():
                raise ActorError(self._blame("closed", "no more requests"))
            names: dict[str, Any] = {self._limit_name: limit}
            body = {"model": self.model, "messages": turns, "temperature": temperature}
            if seed is not None and self._takes_seed:
                names["seed"] = seed
            if n > 1:
                names["n"] = n
            try:
                answer = self._post(body | names)
                return self._samples(answer)
            except openai.APIStatusError as error:
                line = self._line(error)
                if error.status_code not in REFUSED:
                    raise
                if any(words in line.lower() for words in OVERFLOW):
                    raise ContextOverflow(self._blame(error.status_code, line)) from error
                if not self._adapt(line.lower(), names):
                    if n > 1:
                        return []
                    raise
            except RuntimeError as error:  # the client was closed meanwhile
                raise ActorError(self._blame("closed", self._line(error))) from error

    def _post(self, body: dict) -> Any:
        """One request and its answer."""
        with self._gate:
            if self._closed.is_set():
                raise ActorError(self._blame("closed", "no more requests"))
            try:
                with self._meter:
                    answer = self._client.post("/chat/completions", body=body, cast_to=object)
                self._gate.answered()
                return answer
            except openai.APIStatusError as error:
                if error.status_code in OVERLOADED:
                    pause = retry_after(error.response.headers) or 0.0
                    self._gate.refused(min(LONGEST_WAIT, pause))
                raise

    def _adapt(self, line: str, names: dict) -> bool:
        """Drop or rename what the refusal names; true if the next attempt differs."""
        if "max_completion_tokens" in line and "max_tokens" in names:
            self._limit_name = "max_completion_tokens"
            return True
        if "seed" in line and "seed" in names:
            self._takes_seed = False
            return True
        return False

    def _samples(self, answer: Any) -> list[Sample]:
        """The choices as samples. A body without choices (some proxies answer errors with 200) is worth a retry."""
        body = answer if isinstance(answer, dict) else {}
        choices = body.get("choices")
        if not choices:
            raise ValueError(f"an answer without choices: {str(body.get('error', answer))[:200]}")
        usage = body.get("usage") or {}
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        self._meter.count(prompt, completion)
        share, more = divmod(completion, len(choices))
        return [
            Sample(
                choice["message"].get("content") or "",
                0 if i else prompt,
                share + (i < more),
                choice.get("finish_reason") == "length",
            )
            for i, choice in enumerate(choices)
        ]

    def _line(self, error: Exception) -> str:
        """What the server said, on one line, without the key."""
        text = str(error) if not error.__cause__ else f"{error} ({error.__cause__})"
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300]

    def _blame(self, status: int | str, line: str) -> str:
        return f"{self.base_url} model {self.model}: {status}: {line}"

    def _complaint(self, status: int, line: str) -> str:
        """The first contact failed: name the variable that is the likely cause."""
        if status in (401, 403):
            return f"OPENAI_API_KEY is not accepted by {self.base_url}: {line}"
        if status == 404:
            return f"MODEL_NAME={self.model} or OPENAI_BASE_URL={self.base_url} is not known there: {line}"
        return f"OPENAI_BASE_URL={self.base_url} does not answer as a chat endpoint: {line}"


def light_client(base_url: str) -> Any:
    """A client for plain HTTP without a proxy (your own server); None elsewhere: the openai library's own."""
    url = urllib.parse.urlsplit(base_url)
    proxied = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(url.netloc)
    if url.scheme != "http" or proxied:
        return None
    transport: Any = Transport(httpx2, KEEP_ALIVE)
    return openai.DefaultHttpxClient(transport=transport)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks us to wait, from a number or an HTTP date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
