"""Reads the measurements in `benchmarks/results` for the pages that show them.

The scripts in `benchmarks/` write one file for each study: a comparison as a line of text for each run
(`benchmarks/stored.py`), other studies as plain JSON. What a page says about a study is computed from these files by
the functions here.
"""
import json, math
from io import StringIO
from pathlib import Path
import numpy as np, pandas as pd
from scipy import stats
from superconv_fastai.compare import Comparison

__all__ = ['results', 'load', 'unpack', 'final', 'interval', 'difference', 'percent', 'points', 'times', 'slope',
           'StoredBalance', 'StoredFlatness']

results = Path(__file__).resolve().parents[2]/'benchmarks'/'results'

def load(name:str # A file in `benchmarks/results`, without its suffix
    ) -> dict:
    "The stored measurements called `name`"
    return json.loads((results/f'{name}.json').read_text())

# ---- comparisons of schedules ----

def unpack(lines:list # For each run: arm|epochs|seed|status|steps|train_loss,valid_loss,accuracy of each epoch
    ) -> Comparison: # Without learning rates and times, which these files do not keep
    "The comparison that the lines describe"
    runs = {}
    for line in lines:
        arm,n,seed,status,steps,curve = line.split('|')
        rows = [[float(v) if v else None for v in o.split(',')] for o in curve.split(';')]
        epochs = [[round(int(steps)*i/len(rows)), *r, None, None] for i,r in enumerate(rows, 1)]
        runs[arm,int(n),int(seed)] = dict(status=status, metric='accuracy', lower_is_better=False, measured={}, note='',
                                          lrs=[0.], epochs=epochs)
    return Comparison(runs)

def final(comparison, arm, n):
    "Accuracy at the end of each seed's run of `arm` with `n` epochs"
    ends = comparison.ends
    return ends[(ends.arm==arm) & (ends.n_epoch==n)].set_index('seed').metric.sort_index()

def interval(x):
    "Mean and 95 % confidence interval (Student's t)"
    x = np.array(x, dtype=float)
    half = stats.t.ppf(.975, len(x)-1)*stats.sem(x) if len(x)>1 else np.nan
    return x.mean(), x.mean()-half, x.mean()+half

def difference(comparison, a, b):
    "Accuracy of `a` minus that of `b`, paired by seed, in percentage points: mean, low, high. A run is (arm, n_epoch)"
    table = comparison.table(b).set_index(['arm','n_epoch'])
    return 100*table.loc[a, ['difference','low','high']].to_numpy(dtype=float)

# ---- numbers as text ----

def percent(comparison, arm, n):
    "Mean final accuracy with its interval, in percent"
    return '{:.2f} ({:.2f} to {:.2f})'.format(*100*np.array(interval(final(comparison, arm, n))))

def points(mean, low, high):
    "A difference in percentage points with its interval"
    return f'{mean:+.2f}' + (f' ({low:+.2f} to {high:+.2f})' if np.isfinite(low) else ': the same runs')

def times(x):
    "The geometric mean of the ratios `x` with its interval"
    return '{:.2f} ({:.2f} to {:.2f})'.format(*np.exp(interval(np.log(x))))

# ---- the balance study ----

def slope(best):
    "Slope of the values of a series over log10 of its index"
    return stats.linregress(np.log10(best.index), best).slope

class StoredBalance:
    "The runs of the balance study, and which weight decay and dropout are best at each LR"
    def __init__(self):
        study = load('balance')
        runs = pd.read_csv(StringIO('\n'.join([study['columns'], *study['runs']])))
        n_full = runs[runs.split=='test'].groupby(['task','seed']).size()
        # seeds that have all their full runs
        complete = [n_full.get((t,s), 0)==n_full[t].max() for t,s in zip(runs.task, runs.seed)]
        self.runs = runs[complete].assign(error=1-runs.accuracy)
        self.grid,self.tasks = study['grid'],list(dict.fromkeys(runs.task))

    def seeds(self, task): return sorted(set(self.runs[self.runs.task==task].seed))

    def table(self, task, by, axis='wd', seed=None):
        "Full runs, mean of seeds: a row for each LR, a column for each value of `axis`. Diverged counts as the worst"
        r = self.runs
        on_axis = (r.dropout==0) if axis=='wd' else (r.wd==self.grid['wd_of_drops'])
        d = r[(r.task==task) & (r.split=='test') & on_axis]
        if seed is not None: d = d[d.seed==seed]
        filled = d.assign(v=d[by].fillna(d[by].max()))
        return filled.pivot_table(index='lr_max', columns=axis, values='v', aggfunc='mean')

    def log_wd(self, best):
        "log10 of weight decays; 0 counts as half a decade below the smallest that was tried"
        return np.log10(best.replace(0, min(v for v in self.grid['wds'] if v)/10**.5))

    def slopes(self, task, by, axis='wd', top=math.inf):
        "For each seed the slope of the best value over log10(LR): of log10 of the weight decay, or of the dropout"
        bests = [self.table(task, by, axis, s).loc[:top].idxmin(axis=1) for s in self.seeds(task)]
        return [slope(self.log_wd(b)) if axis=='wd' else .2*slope(b) for b in bests]

# ---- the flatness study ----

class StoredFlatness:
    "What was measured on each network: when the training loss first fell to a level, and at the end of the run"
    def __init__(self):
        self.study = load('flatness')
        self.runs = self.study['runs']
        self.tasks = list(dict.fromkeys(r['task'] for r in self.runs))
        self.arms = list(self.study['tasks'][self.tasks[0]]['epochs'])
        self.base,*self.others = self.arms

    def of(self, task, arm): return [r for r in self.runs if (r['task'],r['arm'])==(task,arm)]

    def measured(self, task, arm, when):
        "A row for each seed that got there. `when` is 'end', or a level of the training loss"
        rows = {r['seed']: r['end'] if when=='end' else r['at'].get(when) for r in self.of(task, arm)}
        return pd.DataFrame({k:v for k,v in rows.items() if v}).T.astype(float)

    def level(self, task):
        "The level of the training loss that the most arms reach, each with three runs; the lowest of several"
        levels = [f'{l:g}' for l in sorted(self.study['tasks'][task]['levels'])]
        return max(levels, key=lambda l: sum(len(self.measured(task, a, l))>2 for a in self.arms)) # max: the first

    def ratios(self, key, when=None):
        "Ratio of each other arm to the first: mean and interval by (task, arm), `when` or at the common training loss"
        res = {}
        for t in self.tasks:
            for a in self.others:
                x,y = (self.measured(t, o, when or self.level(t)) for o in (a,self.base))
                if len(x) and len(y) and len(r := np.log(x[key]/y[key]).dropna())>2: res[t,a] = np.exp(interval(r))
        return res

    def in_the_end(self):
        "Final test accuracy of each other arm minus that of the first, in points: mean and interval by (task, arm)"
        def accuracy(t, a): return self.measured(t, a, 'end').test_accuracy
        def gain(t, a): return 100*np.array(interval(accuracy(t, a)-accuracy(t, self.base)))
        return {(t,a):gain(t, a) for t in self.tasks for a in self.others}
