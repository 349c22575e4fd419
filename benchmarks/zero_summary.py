"""What the runs of `zero_tuning.py` say: regrets with intervals, and steps saved.

Regret: the score of the oracle minus that of an arm. The oracle for a seed is the LR, of `fit_one_cycle` or
`fit_superconv`, that is best on the mean of the cell's *other* seeds, scored on this one; a regret can be negative.
Points of accuracy; where a cell has none, percent of (untrained loss - oracle's loss). Intervals: 95 %, by a bootstrap
over data sets, then cells, then seeds; with few data sets they are rather too narrow.
"""
import math, sys
import numpy as np, pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression
from superconv_fastai.runs import read_log
from common import results, save_results
from lr_free import ARMS as LR_FREE
from zero_cells import data_set, is_sgd, usual

def runs_of(half, complete=True):
    "Head of the first log and the runs, of all logs, of the cells and seeds that are complete"
    logs = [read_log('zero tuning', f) for f in sorted(results.glob(f'zero_tuning_{half}*.jsonl'))]
    head,runs = logs[0][0],{k:r for _,log,_ in logs for k,r in log.items()}
    if any(other['of']!=head['of'] for other,*_ in logs): sys.exit(f'the logs of {half} are of several methods')
    whole = {(c,s) for c,a,s in runs if a=='end'}
    return head,{k:r for k,r in runs.items() if not complete or (k[0],k[2]) in whole}

def is_oracle(arm): return arm.startswith(('fit_one_cycle ','fit_superconv '))

def score(run, untrained):
    "Points of accuracy, or percent of the untrained loss; a run that diverged learned nothing"
    if run['accuracy'] is not None: return 100*run['accuracy']
    return 100*(1-ifnan(run['loss'], untrained['loss'])/untrained['loss'])

def ifnan(v, otherwise): return v if v is not None and math.isfinite(v) else otherwise

def scores(runs):
    "A row for each cell, arm and seed"
    rows = [dict(cell=c, arm=a, seed=s, score=score(r, runs[c,'untrained',s]), has_accuracy=r['accuracy'] is not None,
                 **{k:r.get(k) for k in ('lr','steps','search','seconds','run_seconds','restarts')})
            for (c,a,s),r in runs.items() if 'loss' in r]
    return pd.DataFrame(rows)

def oracle(df, others=True):
    "Score of each cell's and seed's oracle, and its arm: the best on the `others` or on all seeds"
    rows = []
    for cell,o in df[df.arm.map(is_oracle)].groupby('cell'):
        table = o.pivot_table(index='arm', columns='seed', values='score')
        for seed in table:
            chosen_on = table.drop(columns=seed) if others and table.shape[1]>1 else table
            arms = chosen_on.dropna().mean(axis=1)
            arms = arms[table[seed].reindex(arms.index).notna()] # this seed has to have it too
            rows.append(dict(cell=cell, seed=seed, oracle=arms.idxmax(), best=table.loc[arms.idxmax(), seed]))
    return pd.DataFrame(rows)

def regrets(runs, others=True):
    "A row for each cell, arm and seed, with its regret"
    df = scores(runs)
    df = df.merge(oracle(df, others), on=['cell','seed'])
    df['regret'] = df.best-df.score
    loss_only = ~df.has_accuracy
    df.loc[loss_only,'regret'] *= 100/df.best[loss_only] # percent of what the oracle gained
    return df

def interval(df, value='regret', n=2000):
    "95 % interval of the mean by a bootstrap over data sets, cells in them, seeds in those"
    rng = np.random.RandomState(0)
    cells = {c:o[value].to_numpy() for c,o in df.groupby('cell')}
    sets = {}
    for c in cells: sets.setdefault(data_set(c), []).append(c)
    names = list(sets)
    def pick(values): return [values[i] for i in rng.randint(len(values), size=len(values))]
    means = []
    for _ in range(n):
        chosen = [c for name in pick(names) for c in pick(sets[name])]
        means.append(np.mean(np.concatenate([rng.choice(cells[c], len(cells[c])) for c in chosen])))
    return tuple(np.percentile(means, [2.5,97.5]))

def by_arm(df):
    "Mean, 90th percentile, worst and interval of each arm's regret"
    rows = []
    apart = 'untrained', 'fine_tune', 'superconverge, head first' # no choice of an LR, or of one cell alone
    for arm,o in df.groupby('arm'):
        if is_oracle(arm) or ' x' in arm or arm in apart: continue
        low,high = interval(o)
        rows.append(dict(arm=arm, mean=o.regret.mean(), low=low, high=high, p90=o.regret.quantile(.9),
                         worst=o.regret.max(), cells=o.cell.nunique(), runs=len(o)))
    return pd.DataFrame(rows).sort_values('mean').set_index('arm')

def difference(df, arm, other='superconverge'):
    "How much larger the regret of `arm` is than that of `other`, paired: mean and interval"
    both = df[df.arm.isin([arm,other])].pivot_table(index=['cell','seed'], columns='arm', values='regret').dropna()
    both['more'] = both[arm]-both[other]
    return both.more.mean(),*interval(both.reset_index(), 'more')

def cell_differences(df, arm, other='superconverge'):
    "The same for each cell: mean, and 95 % interval over its seeds by Student's t"
    rows = []
    for cell,o in df[df.arm.isin([arm,other])].groupby('cell'):
        if o.arm.nunique()<2: continue # this network could not be trained so
        table = o.pivot_table(index='seed', columns='arm', values='regret').dropna()
        more = table[arm]-table[other]
        if len(more)<2: continue
        low,high = stats.t.interval(.95, len(more)-1, more.mean(), more.sem())
        rows.append(dict(cell=cell, mean=more.mean(), low=low, high=high))
    return pd.DataFrame(rows)

def seconds_ratio(df):
    "Seconds of a step of superconverge's run over those of `fit_superconv`: median over cells and seeds"
    ours = df[df.arm=='superconverge'].set_index(['cell','seed'])
    theirs = df[df.arm.str.startswith('fit_superconv ')]
    theirs = (theirs.seconds/theirs.steps).groupby([theirs.cell,theirs.seed]).median()
    return float((ours.run_seconds/ours.steps/theirs).median())

def calibrated_factor(sgd):
    "The LR that is best on the development cells of this kind of optimizer, over the one where a search begins"
    df = scores(runs_of('development')[1])
    df = df[df.arm.str.startswith('fit_one_cycle ') & (df.cell.map(is_sgd)==sgd)]
    df['factor'] = [round(float(a.split()[1])/usual(c), 2) for a,c in zip(df.arm, df.cell)]
    table = df.pivot_table(index='factor', columns=['cell','seed'], values='score').dropna() # of the grid they share
    return float(table.mean(axis=1).idxmax())

def budget_to_reach(means, target):
    "The budget, in log, at which the isotonic curve through `means` (by budget) reaches `target`; `inf` beyond"
    budgets = sorted(means)
    curve = isotonic_regression([means[b] for b in budgets]).x
    if curve[0]>=target: return budgets[0]
    for (a,lo),(b,hi) in zip(zip(budgets, curve), zip(budgets[1:], curve[1:])):
        if hi>=target: return float(np.exp(np.interp(target, [lo,hi], np.log([a,b]))))
    return math.inf

def steps_saved(df, workflow):
    """For each cell: steps that `workflow` needs to get as far as `superconverge`, over ours with the search. `beyond`:
    it did not get there, and the ratio is that of its longest run; `at_most`: its shortest run did, and a shorter one
    may"""
    rows = []
    for cell,o in df[df.seed<3].groupby('cell'):
        mean = o.groupby('arm').agg(score=('score','mean'), steps=('steps','mean'), search=('search','mean'))
        if workflow not in mean.index: continue
        ours = mean.loc['superconverge']
        arms = [workflow, *(f'{workflow} x{k}' for k in (2,4,8))]
        means = {mean.steps[a]+100:mean.score[a] for a in arms if a in mean.index} # lr_find takes 100 steps
        need,mine = budget_to_reach(means, ours.score),ours.steps+ours.search
        rows.append(dict(cell=cell, steps=mean.steps[workflow], seeds=o.seed.nunique(), beyond=math.isinf(need),
                         ratio=min(need, max(means))/mine, at_most=need==min(means)))
    return pd.DataFrame(rows)

def study(half):
    """All that the runs of this half say, as JSON; `None` before its first cell is complete. Points of accuracy and
    percent of the loss are apart"""
    if not any(results.glob(f'zero_tuning_{half}*.jsonl')): return None
    head,runs = runs_of(half)
    if not runs: return None
    df = regrets(runs)
    points,percent = df[df.has_accuracy],df[~df.has_accuracy]
    far = points[~points.cell.str.contains('near')]
    ours = df[df.arm=='superconverge']
    cells = ours.groupby('cell').agg(regret=('regret','mean'), worst=('regret','max'), seeds=('seed','count'),
                                     search=('search','mean'), steps=('steps','mean'), restarts=('restarts','sum'),
                                     has_accuracy=('has_accuracy','first'))
    cells['lrs'] = ours.groupby('cell').lr.agg(list)
    for arm in ('calibrated default','range test','Prodigy','fine_tune','superconverge, head first'):
        if arm in set(df.arm): cells[arm] = df[df.arm==arm].groupby('cell').regret.mean()
    rivals = [a for a in ('valley','steep','calibrated default',*LR_FREE) if a in set(df.arm)]
    def records(table):
        return table.reset_index(drop=table.index.name is None).replace({np.nan:None}).to_dict('records')
    n_runs = sum(bool(r.get('steps')) for r in runs.values())
    res = dict(method=head['of']['method'], machine=head['info']['machine'], n_runs=n_runs,
               arms=records(by_arm(points)), percent=records(by_arm(percent)) if len(percent) else [],
               without_near=records(by_arm(far[far.arm=='superconverge'])), cells=records(cells),
               differences={a:difference(points, a) for a in rivals},
               per_cell={a:records(cell_differences(df, a)) for a in rivals}, seconds_ratio=seconds_ratio(df),
               saved={w:records(steps_saved(df, w)) for w in ('valley','steep')})
    on_all = regrets(runs, others=False)
    on_all = on_all[on_all.has_accuracy & (on_all.arm=='superconverge')].regret
    mixed = records(by_arm(ours))[0] if len(percent) else None # as if percent were points
    return res | dict(aims=aims(res), on_all_seeds=on_all.mean(), mixed=mixed,
                      mixed_differences={a:difference(df, a) for a in rivals} if len(percent) else {})

def aims(half):
    "What was aimed at: in words, what came of it, was it reached? `None` where the runs cannot tell"
    ours = next(r for r in half['arms'] if r['arm']=='superconverge')
    points = {r['cell'] for r in half['cells'] if r['has_accuracy']}
    saved = pd.DataFrame([r for r in half['saved']['valley'] if r['steps']>=300 and r['cell'] in points])
    median,least,ratio = saved.ratio.median(),saved.loc[saved.ratio.idxmin()],half['seconds_ratio']
    res = [('mean regret at most 0.5', f"{ours['mean']:.2f}", ours['mean']<=.5),
           ('90th percentile at most 1', f"{ours['p90']:.2f}", ours['p90']<=1),
           ('worst at most 2', f"{ours['worst']:.2f}", ours['worst']<=2)]
    for arm,name in (('steep','`steep`'), ('calibrated default','the calibrated default')):
        if arm not in half['differences']: more,ok = 'not an arm',None
        else:
            mean,low,high = half['differences'][arm]
            more,ok = f'{mean:.2f} less ({low:.2f} to {high:.2f})',low>0
        res.append((f'less regret than {name}, interval without 0', more, ok))
    if 'Prodigy' not in half['differences']: ahead,behind = ('not an arm',None),('not an arm',None)
    else:
        mean,low,high = half['differences']['Prodigy']
        ahead = f'{mean:.2f} less ({low:.2f} to {high:.2f})',mean>0
        rows = [r for r in half['per_cell']['Prodigy'] if r['cell'] in points]
        worse = [r['cell'] for r in rows if r['high'] is not None and r['high']<0]
        few = min(r['seeds'] for r in half['cells'])<3
        if worse: behind = ', '.join(worse),False
        else: behind = ('too few seeds to say',None) if few else ('on none',True)
    floor = 'at most '*bool(least.at_most)
    res += [('ahead of Prodigy on the mean', *ahead), ('behind Prodigy on no cell', *behind),
            ('steps saved against `valley`, runs of 300 steps or more: median at least 2',
             f"{'more than '*bool(saved.beyond.mean()>.5)}{median:.1f}", median>=2),
            ('and on no cell below 0.75', f'{floor}{least.ratio:.2f}', None if floor else least.ratio>=.75),
            ('seconds of a step at most 1.05 times those of `fit_superconv`', f'{ratio:.2f} times', ratio<=1.05)]
    return [dict(aim=a, came=came, reached=None if ok is None else bool(ok)) for a,came,ok in res]

def summary():
    "Write it, and print it"
    found = {half:study(half) for half in ('development','confirmation')}
    for half,o in found.items():
        if o is None:
            print(f'{half}: no cell is complete')
            continue
        print(f"{half}: {o['n_runs']} runs, method {o['method'][:10]}")
        for k in ('arms','percent','without_near','cells'): print(pd.DataFrame(o[k]).round(2).to_string(index=False))
        for arm,d in o['differences'].items(): print('{} - superconverge: {:.2f} ({:.2f} to {:.2f})'.format(arm, *d))
        for w,rows in o['saved'].items(): print(f'steps saved against {w}\n', pd.DataFrame(rows).round(2).to_string())
    save_results('zero_tuning', found)
