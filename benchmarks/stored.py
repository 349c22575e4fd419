"How comparisons are written to `results/`: a line of text for each run. `nbs/tutorials/stored_results.py` reads them."
import math

columns = 'arm|n_epoch|seed|status|steps|train_loss,valid_loss,accuracy of each epoch'

def _number(v, digits): return '' if v is None else f'{v:.{digits}g}'

def pack(comparison):
    "A line of text for each run, as `columns` says"
    def curve(r): return ';'.join(f'{_number(t,3)},{_number(v,4)},{_number(m,5)}' for _,t,v,m,*_ in r['epochs'])
    return ['|'.join([arm, str(n), str(seed), r['status'], str(r['epochs'][-1][0]), curve(r)])
            for (arm,n,seed),r in comparison._runs.items()]

def pack_tuned(tuned):
    "For each arm and budget the LR that was found, why it may be untuned, and the mean accuracy with each LR"
    def score(v): return round(float(v), 5) if math.isfinite(v) else None
    def tried(df): return {f'{r.lr:g}': score(r.accuracy) for r in df.itertuples()}
    res = {}
    for arm,t in tuned.items():
        df = t.table()
        res[arm] = {str(n): dict(lr=lr, untuned=t.untuned.get(n), tried=tried(df[df.n_epoch==n]),
                                 by_loss=_by_loss(t, n)) for n,lr in t.lrs.items()}
    return res

def _by_loss(t, n):
    "The LR that the held-out loss would have chosen"
    ends,mean = t.comparison.ends,{}
    for (arm,m),lr in t._arms.items():
        if m==n: mean[lr] = ends[(ends.arm==arm) & (ends.n_epoch==n)].valid_loss.fillna(math.inf).mean()
    return min(mean, key=mean.get)
