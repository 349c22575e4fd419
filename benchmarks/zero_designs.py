"""Which way to search for the LR? Each design is replayed on stored runs of the development cells; nothing is trained.

    python benchmarks/zero_designs.py

`results/zero_tuning_designs.jsonl` holds, for development cells with one or two seeds, what finders said (`find`), the
held-out loss after short cycles over a grid of LRs, 20 to 200 steps long (`short`), and complete runs over it
(`final`). A design that looks at an LR between two of the grid gets what lies on the line between them. Regret: points
of test accuracy below the best LR of the grid. These runs are from a busy machine and few: they chose the design, and
are no proof. Writes results/zero_tuning_designs.json.
"""
import json, math
from collections import defaultdict
from functools import partial
import numpy as np
from superconv_fastai.lr_search import best_lr, next_lr
from common import results, save_results

class Stored:
    "The stored runs"
    def __init__(self):
        self.final,self.short,self.find = defaultdict(dict),defaultdict(dict),{}
        for line in (results/'zero_tuning_designs.jsonl').read_text().splitlines():
            kind,cell,seed,*at = (run := json.loads(line))['key']
            if kind=='final': self.final[cell,seed][at[0]] = run['acc']
            elif kind=='short': self.short[cell,seed,at[0]][at[1]] = run['loss']
            else: self.find[cell,seed] = run
        lengths = 20,35,60,110
        self.cells = [k for k in self.find if all(len(self.short[*k,n])>5 for n in lengths) and (k[0],0) in self.final]

    def score(self, cell, lr):
        "Test accuracy of a run at `lr`, in points: mean of the seeds"
        return 100*np.mean([between(t, lr) for (c,_),t in self.final.items() if c==cell])
    def best(self, cell): return max(self.score(cell, lr) for lr in self.final[cell,0])

    def loss(self, cell, seed, lr, n):
        "Held-out loss after a cycle of `n` steps to `lr`"
        lengths = sorted(k[2] for k,t in self.short.items() if k[:2]==(cell,seed) and len(t)>5)
        logs = [math.log(max(between(self.short[cell,seed,k], lr), 1e-4)) for k in lengths]
        return math.exp(np.interp(math.log(n), np.log(lengths), logs))

def between(table, lr):
    "The value at `lr`, on a line in log LR; a loss that was not finite counts as 20"
    lrs = sorted(table)
    vals = [20. if (v := table[x]) is None or v!=v else min(v, 20.) for x in lrs]
    return float(np.interp(math.log(lr), np.log(lrs), vals))

# ---- designs: the LR, and how many steps it cost to find it ----

untrained = math.log(10) # ten classes

def is_sgd(cell): return 'sgd' in cell
def constant(stored, cell, seed, lr): return lr*(10 if is_sgd(cell) else 1),0
def suggestion(stored, cell, seed, name): return stored.find[cell,seed]['lr_find100'][name],100
def probe(stored, cell, seed): return stored.find[cell,seed]['probe'],2*stored.find[cell,seed]['probe_steps']

def race(stored, cell, seed, start, length, tie, most=5):
    "Short cycles by the package's own rules, from the LR where `start` says"
    first,cost = start(stored, cell, seed)
    losses,lr = {},first
    while lr is not None and len(losses)<most:
        losses[lr] = stored.loss(cell, seed, lr, length)
        lr = next_lr(losses, untrained)
    return best_lr(losses, untrained, tie)[0],cost+length*len(losses)

usual = partial(constant, lr=.01)
designs = {
    **{f'the same for all: {lr:g}, SGD {10*lr:g}': partial(constant, lr=lr) for lr in (.01,.02,.03,.05)},
    **{f"lr_find's {name}": partial(suggestion, name=name) for name in ('valley','steep','minimum')},
    'the update probe alone': probe,
    **{f'cycles of {n} steps from the probe': partial(race, start=probe, length=n, tie=.03) for n in (22,29)},
    **{f'cycles of {n} steps from the usual LR': partial(race, start=usual, length=n, tie=.03) for n in (22,29,50,100)},
    'the same, 29 steps, no tie': partial(race, start=usual, length=29, tie=0.)}

def main():
    stored,rows = Stored(),[]
    for name,choose in designs.items():
        found = [choose(stored, *k) for k in stored.cells]
        regret = [stored.best(cell)-stored.score(cell, lr) for (cell,_),(lr,_) in zip(stored.cells, found)]
        rows.append(dict(design=name, mean=np.mean(regret), p90=np.quantile(regret, .9), worst=max(regret),
                         steps=np.mean([cost for _,cost in found])))
        print(f"{name:45} mean {rows[-1]['mean']:5.2f}  90 % {rows[-1]['p90']:5.2f}  worst {rows[-1]['worst']:6.2f}",
              f" {rows[-1]['steps']:4.0f} steps")
    save_results('zero_tuning_designs', dict(cells=len(stored.cells), rows=rows))

if __name__=='__main__': main()
