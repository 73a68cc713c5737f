"""Environments that are wrong in one way each; the sound one is a counter. No test by itself."""

from __future__ import annotations

import os
import random
import time

_shared = {"count": 0}
_system = random.SystemRandom()


class Counter:
    """Count to the index plus two."""

    prompt = "Say `up` until you are there. Commands: up, down."

    def reset(self, index):
        self.goal, self.count = index + 2, 0
        return f"Count to {self.goal}."

    def step(self, action):
        if action not in ("up", "down"):
            return f"Unknown: {action}", 0.0, False
        self.count += 1 if action == "up" else -1
        there = self.count == self.goal
        return f"You are at {self.count}.", float(there), there

    def copy(self):
        other = type(self)()
        other.__dict__.update(self.__dict__)
        return other

    def split(self):
        return {"train": range(4), "test": range(4, 6)}

    def is_refusal(self, text):
        return text.startswith("Unknown")

    def valid_actions(self):
        return ["up", "down"]

    def expert(self, index):
        return ["up"] * (index + 2)


class RewardAboveOne(Counter):
    def step(self, action):
        text, reward, done = super().step(action)
        return text, 10 * reward, done


class NegativeReward(Counter):
    def step(self, action):
        text, reward, done = super().step(action)
        return text, reward - 0.1, done


class RewardIsNone(Counter):
    def step(self, action):
        return super().step(action)[0], None, False


class RewardIsNan(Counter):
    def step(self, action):
        return super().step(action)[0], float("nan"), False


class NeverDone(Counter):
    def step(self, action):
        return super().step(action)[0], 0.0, False


class RaisesInStep(Counter):
    def step(self, action):
        if self.count == 1:
            raise KeyError("no such room")
        return super().step(action)


class RaisesInReset(Counter):
    def reset(self, index):
        raise RuntimeError("no map for this index")


class ExitsInStep(Counter):
    def step(self, action):
        raise SystemExit(3)


class Blocks(Counter):
    def step(self, action):
        while True:
            time.sleep(0.01)


class NoText(Counter):
    def step(self, action):
        return {"text": super().step(action)[0]}, 0.0, False


class OpensWithoutText(Counter):
    def reset(self, index):
        super().reset(index)


class TwoValues(Counter):
    def step(self, action):
        return super().step(action)[:2]


class DoneIsText(Counter):
    def step(self, action):
        text, reward, done = super().step(action)
        return text, reward, "yes" if done else "no"


class OpensAnew(Counter):
    def reset(self, index):
        return super().reset(index) + f" Today is {_system.random()}."


class AnswersAnew(Counter):
    def step(self, action):
        text, reward, done = super().step(action)
        return f"{text} It is {_system.random()} o'clock.", reward, done


class SaysLive(AnswersAnew):
    search_mode = "live"


class SharesState(Counter):
    def step(self, action):
        _shared["count"] += 1
        text, reward, done = super().step(action)
        return f"{text} Step {_shared['count']}.", reward, done

    def reset(self, index):
        _shared["count"] = 0
        return super().reset(index)


class CopySharesState(Counter):
    def reset(self, index):
        self.box = {"count": 0}
        return super().reset(index)

    def step(self, action):
        self.box["count"] += 1
        text, reward, done = super().step(action)
        return f"{text} Step {self.box['count']}.", reward, done


class CopyIsItself(Counter):
    def copy(self):
        return self


class CopyForgets(Counter):
    def copy(self):
        other = type(self)()
        other.reset(self.goal - 2)
        return other


class RefusalUnseen(Counter):
    def is_refusal(self, text):
        return False


class RefusesAll(Counter):
    def is_refusal(self, text):
        return True


class CloseRaises(Counter):
    def close(self):
        raise OSError("cannot close")


class NonsenseRaises(Counter):
    def step(self, action):
        return super().step({"up": "up", "down": "down"}[action])


class Dies(Counter):
    def step(self, action):
        os._exit(7)


class NoReset:
    def step(self, action):
        return "", 0.0, False


class SplitOverlaps(Counter):
    def split(self):
        return {"train": [1, 2], "test": [2, 3]}


class SplitIsNone(Counter):
    def split(self):
        return None


class SplitIsHuge(Counter):
    def split(self):
        return {"train": range(10**12)}


class PromptIsNumber(Counter):
    prompt = 5  # type: ignore[assignment]


class ModeIsList(Counter):
    search_mode = ["fork"]


class RewardIsHuge(Counter):
    def step(self, action):
        return "You win.", 10**400, True


class InterruptsInStep(Counter):
    def step(self, action):
        raise KeyboardInterrupt


class BadRange(Counter):
    reward_range = (1, 0)


class BadMode(Counter):
    search_mode = "maybe"


def not_made():
    """Fail."""
    raise FileNotFoundError("no game file")
