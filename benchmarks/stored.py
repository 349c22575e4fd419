"How comparisons are kept in `results/`, a line of text for each run, and how the pages of the studies read them."
import json, math
import numpy as np
from scipy import stats
from superconv_fastai.compare import Comparison
from common import results

# ---- written ----

columns = 'arm|n_epoch|seed|status|steps|train_loss,valid_loss,accuracy of each epoch'

def _number(v, digits): return '' if v is None else f'{v:.{digits}g}'

def pack(comparison):
    "A line of text for each run, as `columns` says"
    return ['|'.join([arm, str(n), str(seed), r['status'], str(r['epochs'][-1][0]),
                      ';'.join(f'{_number(t,3)},{_number(v,4)},{_number(m,5)}' for _,t,v,m,*_ in r['epochs'])]) for (arm,n,seed),r in comparison._runs.items()]

def pack_tuned(tuned):
    "For each arm and budget the LR that was found, why it may be untuned, and the mean accuracy with each LR"
    res = {}
    for arm,t in tuned.items():
        df = t.table()
        res[arm] = {str(n): dict(lr=lr, untuned=t.untuned.get(n), tried={f'{r.lr:g}':round(float(r.accuracy), 5) if math.isfinite(r.accuracy) else None for r in df[df.n_epoch==n].itertuples()},
                                 by_loss=_by_loss(t, n)) for n,lr in t.lrs.items()}
    return res

def _by_loss(t, n):
    "The LR that the held-out loss would have chosen"
    ends,mean = t.comparison.ends,{}
    for (arm,m),lr in t._arms.items():
        if m==n: mean[lr] = ends[(ends.arm==arm) & (ends.n_epoch==n)].valid_loss.fillna(math.inf).mean()
    return min(mean, key=mean.get)

# ---- read ----

def load(name): return json.loads((results/f'{name}.json').read_text())

def unpack(lines):
    "The `Comparison` that `pack` was given, without LRs and times"
    runs = {}
    for line in lines:
        arm,n,seed,status,steps,curve = line.split('|')
        rows = [[float(v) if v else None for v in o.split(',')] for o in curve.split(';')]
        runs[arm,int(n),int(seed)] = dict(status=status, metric='accuracy', lower_is_better=False, measured={}, note='', lrs=[0.],
            epochs=[[round(int(steps)*i/len(rows)), *r, None, None] for i,r in enumerate(rows, 1)])
    return Comparison(runs)

def interval(x):
    "Mean and 95 % t-interval"
    x = np.array(x, dtype=float)
    return x.mean(), *stats.t.interval(.95, len(x)-1, x.mean(), stats.sem(x))

def difference(comparison, a, b):
    "Mean and 95 % interval of the accuracy of arm `a` minus that of `b`, each (name, n_epoch), seed by seed, in percentage points"
    return 100*comparison.table(b).set_index(['arm','n_epoch']).loc[a, ['difference','low','high']].to_numpy(dtype=float)

def percent(comparison, arm, n): return '{:.2f} ({:.2f} to {:.2f})'.format(*100*np.array(interval(comparison.ends.query('arm==@arm and n_epoch==@n').metric)))
def points(mean, low, high): return f'{mean:+.2f} ({low:+.2f} to {high:+.2f})'
def times(x): return '{:.2f} ({:.2f} to {:.2f})'.format(*np.exp(interval(np.log(x))))
