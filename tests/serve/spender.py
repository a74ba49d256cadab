"""A gateway's ledger as a process of its own: spends one account from several tasks and prints what it spent.

python spender.py URL FOLDER TOKENS_LIMIT TASKS MOST_REQUESTS [hang]

Each line of output is ``spent N`` after a settled request; with "hang" it then reserves once more, says ``holds N`` and
sleeps, to be killed. The last line of a whole run is ``done``.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from quantgate.serve import Caller, OverBudget
from quantgate.serve._ledger_sql import connect
from quantgate.serve.ledger import LeaseLedger
from quantgate.serve_config import Budget

ANN = Caller("k_ann", budget="ann")


async def spend(ledger: LeaseLedger, most: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(most):
        prompt, answer = chance.randint(1, 20), chance.randint(1, 40)
        try:
            held = await ledger.admit(ANN, prompt, answer)
        except OverBudget as over:
            if (prompt, answer) == (1, 1) or over.retry_after_s != 1.0:
                return
            await asyncio.sleep(0.01)
            continue
        await asyncio.sleep(0)
        used = chance.randint(0, answer)
        assert held is not None
        ledger.settle(held, prompt, used)
        print("spent", prompt + used, flush=True)


async def main(url: str, folder: str, limit: str, tasks: int, most: int, hang: bool) -> None:
    budget = Budget.model_validate({"tokens": limit})
    ledger = LeaseLedger(connect(url, wait_s=20.0), Path(folder), {"ann": budget}.get, wait_s=30.0)
    ledger.start()
    await asyncio.gather(*(spend(ledger, most, seed) for seed in range(tasks)))
    if hang:
        held = await ledger.admit(ANN, 5, 5)
        print("holds", held and held.tokens, flush=True)
        await asyncio.sleep(3600)
    ledger.close()
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), "hang" in sys.argv[6:]))
