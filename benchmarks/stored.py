"How comparisons are kept in `results/`, a line of text for each run, and how the pages of the studies read them."
import json, math
from io import StringIO
import numpy as np, pandas as pd
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
    half = stats.t.ppf(.975, len(x)-1)*stats.sem(x) if len(x)>1 else np.nan
    return x.mean(), x.mean()-half, x.mean()+half

def difference(comparison, a, b):
    "Mean and 95 % interval of the accuracy of arm `a` minus that of `b`, each (name, n_epoch), seed by seed, in percentage points"
    return 100*comparison.table(b).set_index(['arm','n_epoch']).loc[a, ['difference','low','high']].to_numpy(dtype=float)

def final(comparison, arm, n):
    "Accuracy at the end of each seed's run"
    ends = comparison.ends
    return ends[(ends.arm==arm) & (ends.n_epoch==n)].set_index('seed').metric.sort_index()

def percent(comparison, arm, n): return '{:.2f} ({:.2f} to {:.2f})'.format(*100*np.array(interval(final(comparison, arm, n))))
def points(mean, low, high): return f'{mean:+.2f}' + (f' ({low:+.2f} to {high:+.2f})' if np.isfinite(low) else ': the same runs')
def times(x): return '{:.2f} ({:.2f} to {:.2f})'.format(*np.exp(interval(np.log(x))))

# ---- the balance study ----

class Balance:
    "The runs of the balance study, and what is best at each LR"
    def __init__(self):
        study = load('balance')
        runs = pd.read_csv(StringIO('\n'.join([study['columns'], *study['runs']])))
        cell = runs[runs.split=='test'].groupby(['task','seed']).size() # a seed counts when its full runs are there
        self.runs = runs[[cell.get((t,s), 0)==cell[t].max() for t,s in zip(runs.task, runs.seed)]].assign(error=1-runs.accuracy)
        self.grid,self.tasks = study['grid'],list(dict.fromkeys(runs.task))

    def seeds(self, task): return sorted(set(self.runs[self.runs.task==task].seed))

    def table(self, task, by, axis='wd', seed=None):
        "Full runs, mean over the seeds: a row for each LR, a column for each value of the axis; diverged runs count as the worst that was seen"
        r = self.runs
        d = r[(r.task==task) & (r.split=='test') & ((r.dropout==0) if axis=='wd' else (r.wd==self.grid['wd_of_drops']))]
        if seed is not None: d = d[d.seed==seed]
        return d.assign(v=d[by].fillna(d[by].max())).pivot_table(index='lr_max', columns=axis, values='v', aggfunc='mean')

    def log_wd(self, best): return np.log10(best.replace(0, min(v for v in self.grid['wds'] if v)/10**.5))

    def slopes(self, task, by, axis='wd', top=math.inf):
        "For each seed the slope of the best value over log10(lr): of log10 of the weight decay, or of the dropout"
        bests = [self.table(task, by, axis, s).loc[:top].idxmin(axis=1) for s in self.seeds(task)]
        return [slope(self.log_wd(b)) if axis=='wd' else .2*slope(b) for b in bests]

def slope(best): return stats.linregress(np.log10(best.index), best).slope

# ---- the flatness study ----

class Flatness:
    "What was measured on each network: for each arm and seed when the training loss first fell to a level, and at the end of the run"
    def __init__(self):
        self.study = load('flatness')
        self.runs,self.tasks = self.study['runs'],list(dict.fromkeys(r['task'] for r in self.study['runs']))
        self.arms = list(self.study['tasks'][self.tasks[0]]['epochs'])
        self.base,*self.others = self.arms

    def of(self, task, arm): return [r for r in self.runs if (r['task'],r['arm'])==(task,arm)]

    def measured(self, task, arm, when):
        "A row for each seed that got there; `when` is 'end', or a level of the training loss"
        return pd.DataFrame({r['seed']: o for r in self.of(task, arm) if (o := r['end'] if when=='end' else r['at'].get(when))}).T.astype(float)

    def level(self, task):
        "The lowest level of the training loss that runs of all arms reach; the lowest of all if there is none"
        ls = [f'{l:g}' for l in sorted(self.study['tasks'][task]['levels'])]
        return next((l for l in ls if all(len(self.measured(task, a, l))>2 for a in self.arms)), ls[0])

    def ratios(self, key, when=None):
        "Mean ratio of the other arms to the first one and its interval, by network and arm, `when` or at the common level of the training loss"
        res = {}
        for t in self.tasks:
            for a in self.others:
                x,y = (self.measured(t, o, when or self.level(t)) for o in (a,self.base))
                if len(x) and len(y) and len(r := np.log(x[key]/y[key]).dropna())>2: res[t,a] = np.exp(interval(r))
        return res

    def in_the_end(self):
        "Test accuracy of the other arms at their end minus that of the first one, in percentage points, by network and arm"
        return {(t,a): 100*np.array(interval(self.measured(t, a, 'end').test_accuracy-self.measured(t, self.base, 'end').test_accuracy)) for t in self.tasks for a in self.others}
