"""Let the workers of a run share one Ledger, which a process on the driver's node holds."""

from __future__ import annotations

from typing import Any

from mcts_utils.executors.ledger import Ledger, LedgerPlan
from mcts_utils.storage.formats.spent import Paid
from mcts_utils.types import BudgetReached


class RemoteLedger:
    """A Ledger in another process; each worker has a copy of this, which is picklable."""

    def __init__(self, handle: Any) -> None:
        """`handle`: Ray's, of a Ledger."""
        self._handle = handle

    @classmethod
    def begin(cls, ray: Any, plan: LedgerPlan) -> RemoteLedger:
        """Start the process, where the driver's files are."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(Ledger).options(num_cpus=0, scheduling_strategy=here).remote(plan))

    def admit(self, process: str, model: str, most: Paid) -> str:
        """Count a request that is about to be sent, as Ledger does."""
        return str(self._get(self._handle.admit.remote(process, model, most)))

    def settle(self, process: str, model: str, most: Paid, paid: Paid, seconds: float) -> None:
        """Count its answer."""
        self._handle.settle.remote(process, model, most, paid, seconds)

    def forget(self, process: str) -> None:
        """Count the requests of a lost worker as paid."""
        self._handle.forget.remote(process)

    def paid(self) -> dict[str, Any]:
        """Return what each model was asked."""
        return dict(self._get(self._handle.paid.remote()))

    def close(self) -> None:
        """Close the file, if the process is there."""
        try:
            self._get(self._handle.close.remote())
        except BudgetReached:
            pass

    @staticmethod
    def _get(call: Any) -> Any:
        """Return the answer to a call; raise BudgetReached if the process is gone, as nothing is counted then."""
        import ray

        try:
            return ray.get(call)
        except ray.exceptions.RayError as error:
            raise BudgetReached("the process that counts what is paid is gone") from error
