"""Every public call against every kind of learner and training option that fastai users combine.

Each case works, or is refused with a reason that names it. `python tests/integration_table.py` writes what happened to
`data/works_with.json`, which the lesson *Works with* shows."""
import hashlib, json, random, re
from pathlib import Path

import numpy as np, pandas as pd, pytest
from fingerprints import bits, same
from learners import *
from superconv_fastai.all import *

# ---- what a case looks at ----

def optimizer(learn):
    "Hypers and state of the optimizer"
    if learn.opt is None: return None
    if isinstance(learn.opt, OptimWrapper): return bits(learn.opt.opt.state_dict())
    return bits([dict(h) for h in learn.opt.hypers] + [dict(learn.opt.state.get(p, {})) for ps in learn.opt.param_lists for p in ps])

def trained(learn):
    "All that training leaves"
    return dict(weights=bits(learn.model.state_dict()), grads=[bits(p.grad) for p in learn.model.parameters()], opt=optimizer(learn), modes=[m.training for m in learn.model.modules()],
                rngs=(random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state())), loaders=[bits(getattr(dl, 'rng', None)) for dl in learn.dls.loaders])

def everything(learn):
    "All of a learner that a call could change"
    skip = 'learn','file','writer','plt' # what a callback has open
    return dict(**trained(learn), ids=[id(p) for p in learn.model.parameters()], attrs=bits({k:v for k,v in vars(learn).items() if k not in ('path','lock')}), autocast=torch.is_autocast_enabled('cpu'),
                cbs=[(type(cb).__name__, bits({k:v for k,v in sorted(vars(cb).items()) if k not in skip})) for cb in learn.cbs],
                files={str(f):hashlib.sha1(f.read_bytes()).hexdigest() for f in sorted(Path(learn.path).rglob('*')) if f.is_file()})

def hypers(learn): return [[h[k] for h in learn.opt.hypers if k in h] for k in ('lr','mom')]

class Steps(Callback):
    "The LR of each group at every step that the optimizer really takes"
    order,run_valid = 20,False
    def __init__(self): self.seen = []
    def before_step(self): self.seen.append([h['lr'] for h in self.learn.opt.hypers])

def naive_places(case, learn, n_epoch):
    "Optimizer steps in the plan, and those of them that the fit gets to, counted batch by batch"
    sizes = [find_bs(b) for b in learn.dls.train]
    n_acc,n,count,places = getattr(first(learn.cbs, risinstance(GradientAccumulation)), 'n_acc', 1),0,0,[]
    for epoch in range(n_epoch):
        for i,size in enumerate(sizes):
            if not (case=='ShortEpochCallback' and i>4 or case=='a callback that cancels the fit' and epoch*len(sizes)+i>4 or case=='EarlyStoppingCallback' and epoch>1): places.append(n)
            count += size
            if count>=n_acc: n,count = n+1,0
    return n,[p for p in dict.fromkeys(places) if p<n]

# ---- the calls: each makes its learners by `make(seed)`, and asserts what the call promises ----

def call_fit(case, make, path, n_epoch):
    "LR and momentum of each step are those of the pure schedule; the network trains; lr and momentum are put back; the learner goes on"
    n,places = naive_places(case, make(0, path), n_epoch)
    learn,steps = make(0, path),Steps()
    if learn.opt is None: learn.create_opt()
    before,had,weights = hypers(learn),[bool(h.get('mom')) for h in learn.opt.hypers],[p.detach().clone() for p in learn.model.parameters()]
    learn.fit_superconv(n_epoch, cbs=steps)
    learn.opt.set_hyper('lr', learn.lr)
    tops,used = [h['lr'] for h in learn.opt.hypers],learn.recorder.hps_by_group
    learn.opt.set_hypers(lr=before[0])
    assert np.array_equal(np.array(used['lr']), one_cycle(n, tops).values()[places])
    if any(had): assert np.array_equal(np.array(used['mom'])[:,0], momentum_cycle(n, learn.moms).values()[places])
    if case in skips: assert 0 < len(steps.seen) < len(used['lr']) and all(s in used['lr'] for s in steps.seen)
    else: assert steps.seen==used['lr']
    assert learn.recorder.hps['lr']==[o[-1] for o in used['lr']] and hypers(learn)==before
    moved = [not torch.equal(a, b) for a,b in zip(weights, learn.model.parameters()) if b.requires_grad]
    assert sum(moved) > len(moved)*.7, 'few weights were trained'
    usable(case, learn)

def usable(case, learn):
    "Predictions, saving and loading, exporting, and another fit"
    preds = learn.get_preds(dl=learn.dls.valid, reorder=False)[0]
    assert all(p.isfinite().all() for p in (preds if isinstance(preds, (list,tuple)) else [preds]))
    weights = bits(learn.model.state_dict())
    learn.save('kept')
    for p in learn.model.parameters(): p.data.zero_()
    learn.load('kept')
    assert bits(learn.model.state_dict())==weights
    if hasattr(learn.dls.train.dataset, 'new_empty') and case not in no_export:
        learn.export('kept.pkl')
        assert [b[1:3]+b[4:] for _,b in bits(load_learner(learn.path/'kept.pkl').model.state_dict())]==[b[1:3]+b[4:] for _,b in weights]
    learn.fit_superconv(1)
    assert len(learn.recorder.hps['lr'])>0

def trainings(case):
    "Epochs that a learner has trained before a call that must leave it as it was"
    if case=='IterableDataset without a length': return [0] # fastai itself cannot train without a length
    return [0,1] if case in applications and case not in large[:2] or case=='plain' else [1]

def untouched(f):
    "A call that leaves the learner as it was, whether it was trained before or not"
    def res(case, make, path, n_epoch):
        for fits in trainings(case):
            learn = make(0, path)
            if fits: learn.fit(1)
            before = everything(learn)
            try: f(case, learn)
            finally: same(before, everything(learn))
    res.__doc__ = f.__doc__
    return res

def top(learn): return learn.lr.stop if isinstance(learn.lr, slice) else learn.lr

@untouched
def call_range_test(case, learn):
    "A curve with a verdict"
    res = learn.lr_range_test(5*top(learn), n_steps=10, n_evals=3, show_plot=False)
    assert isinstance(res, RangeTest) and res.verdict.reason
    if case=='a callback that cancels the fit': assert 'A callback ended the test after 4 of 10 steps' in repr(res); return
    assert np.allclose(res.lrs, np.linspace(0, 5*top(learn), 11)[[0,3,7,10]]) and len(res.step_losses)==10 and len(res.table())==4
    assert np.isfinite(res.scores).all() and np.isfinite(res.valid_losses).all() and np.isfinite(res.step_losses).all()

def observer(mode):
    def res(case, make, path, n_epoch):
        "Training is to the bit what it is without, and there are estimates"
        ends,est = [],HessianFreeLR(mode, every=2)
        for cbs in ([], [est]):
            learn = make(0, path)
            learn.fit_superconv(n_epoch, cbs=cbs)
            ends.append((trained(learn), bits([v[:2] for v in learn.recorder.values])))
        same(ends[0][0], ends[1][0])
        assert ends[0][1]==ends[1][1]
        assert len(est.estimates) and est.estimates.raw.notna().any()
    return res

@untouched
def call_curvature(case, learn):
    "An LR with its interval, or the reason why there is none"
    res = learn.curvature_lr(3)
    assert math.isfinite(res.probe) and len(res.by_batch)==3 and res.by_batch.notna().all(axis=None) or res.reason

@untouched
def call_curvature_find(case, learn):
    "Estimates along a rising LR"
    res = learn.curvature_lr_find(1e-4, 1e-1, n_steps=12)
    assert len(res.estimates) and (res.informative or res.reason)

@untouched
def call_regularizers(case, learn):
    "What regularizes, with its optimizer, data and model"
    assert {'lr','wd','batch_size','noise_scale'} <= set(learn.regularizers(lr_max=top(learn)).kind)

@untouched
def call_balance(case, learn):
    "Complete cycles with each candidate, and a choice or the reason why there is none"
    res = learn.balance_regularization(top(learn), n_epoch=1, wds=[0,.1], seeds=2)
    assert len(res.runs)==4 and res.reason and res.table().loss.notna().all()
    assert all(r['loss'] is not None and r['steps']>0 for r in res.runs.values())

def call_compare(case, make, path, n_epoch):
    "Both fits from the same weights, scored"
    rng = torch.get_rng_state()
    res = compare_fits(partial(make, path=path), dict(cycle=Learner.fit_superconv, constant=Learner.fit), 1, seeds=1, progress=False)
    assert torch.equal(rng, torch.get_rng_state())
    assert set(res.ends.status)=={'stopped' if case=='a callback that cancels the fit' else 'finished'}
    cycle,constant = res.ends.set_index('arm').loc[['cycle','constant']].itertuples()
    learn = make(0, path)
    n,places = naive_places(case, learn, 1)
    lrs = one_cycle(n, top(learn)).values()[places]
    assert math.isclose(constant.lr, top(learn)) and any(math.isclose(cycle.lr, v) for v in (lrs if case in skips else lrs[-1:]))
    assert 0<cycle.step==constant.step<=len(places) and math.isfinite(cycle.metric) and math.isfinite(cycle.valid_loss)

calls = {'fit_superconv':call_fit, 'lr_range_test':call_range_test, "HessianFreeLR('paper')":observer('paper'), "HessianFreeLR('secant')":observer('secant'),
    "HessianFreeLR('probe')":observer('probe'), 'curvature_lr':call_curvature, 'curvature_lr_find':call_curvature_find, 'regularizers':call_regularizers,
    'balance_regularization':call_balance, 'compare_fits':call_compare}

# ---- what is expected; all else works ----

skips = 'a scaler that skips steps','bfloat16 autocast on the CPU, a scaler that skips a step','fp16, accumulation and clipping at once'
no_export = 'TensorBoardCallback','WandbCallback, offline','CSVLogger' # fastai cannot pickle what they have open

fits = 'fit_superconv',"HessianFreeLR('paper')","HessianFreeLR('secant')","HessianFreeLR('probe')" # all in a run of fit_superconv
adaptive = 'Adam','ranger','Lookahead','Larc','Lamb','torch AdamW','torch RMSprop','torch Adagrad','torch NAdam'
refused = {
    **{('IterableDataset without a length',call):'has no length' for call in calls if call not in ('curvature_lr','regularizers')},
    **{(row,call):'both drive lr or momentum: remove one of them' for row in ('ReduceLROnPlateau','ParamScheduler of lr') for call in (*fits,'balance_regularization','compare_fits')},
    **{(row,f"HessianFreeLR('{mode}')"):"are not its LR times a gradient: use mode='probe'" for row in adaptive for mode in ('paper','secant')},
    **{('an optimizer that has copies of the parameters',call):"the optimizer's parameters are copies of the model's" for call in ("HessianFreeLR('secant')","HessianFreeLR('probe')",'curvature_lr_find')},
    ('a callback that cancels the fit','balance_regularization'): 'a callback of the learner ended a run of the search early',
    ('ShortEpochCallback','lr_range_test'): 'a callback cancels validation, so the range test cannot measure',
    ('ShortEpochCallback','balance_regularization'): 'a callback of the learner cancels validation',
    ('ShortEpochCallback','compare_fits'): 'a callback cancels validation in the run of',
}

cases = [(row, call) for row in (*applications, *options) for call in calls]
# measured: of 222 s (one process, one core) the cases of these rows take 106 s, and the three searches of most others 33 s. The rest, every row and every call, are for every day
large = 'vision_learner','unet_learner','language_model_learner','model.compile()','model.compile() through AOT autograd' # of these only fit_superconv
searches = 'curvature_lr_find','balance_regularization','compare_fits' # many runs each: of these rows only
searched = ('tabular_learner','plain','IterableDataset without a length','ReduceLROnPlateau','TerminateOnNaNCallback','CSVLogger','ProgressCallback, ShowGraphCallback',
            'ShortEpochCallback','a callback that cancels the fit') # and of those that a search has to do something about
def is_slow(row, call): return call!='fit_superconv' if row in large else call in searches and row not in searched
def expected(row, call):
    "'works', or the words with which it is refused"
    return 'refused: '+refused[row,call] if (row,call) in refused else 'works'

def as_expected(row, call, got):
    want,_,words = expected(row, call).partition(': ')
    return got.startswith(want) and words in got if words else got==want

def outcome(row, call, path):
    "What happens: 'works', 'refused' with the message, or whatever else is raised"
    make = applications.get(row) or options[row]
    def remember(seed=0, path=path): made.append(make(seed, path)); weights.append(bits(list(made[-1].model.parameters()))); return made[-1]
    made,weights = [],[]
    try: calls[call](row, remember, path, {'EarlyStoppingCallback':3}.get(row, 1 if row in applications else 2))
    except ValueError as e:
        if call in fits: assert bits(list(made[-1].model.parameters()))==weights[-1], f'refused after it had trained: {e}'
        return f'refused: {e}'
    return 'works'

@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('row,call', [pytest.param(*o, marks=[pytest.mark.slow]*is_slow(*o), id=' / '.join(o)) for o in cases])
def test_works_with(row, call, tmp_path, monkeypatch):
    if row in needs: pytest.importorskip(needs[row])
    monkeypatch.chdir(tmp_path)
    got = outcome(row, call, tmp_path)
    assert as_expected(row, call, got), got

# ---- what the docs say ----

def test_the_table_in_the_docs_is_this_matrix():
    "Its cells are the cases here, each with what is expected here; `python tests/integration_table.py` writes it"
    table = json.loads((root/'tests'/'data'/'works_with.json').read_text())
    assert table['applications']==list(applications) and table['options']==list(options) and table['words']==list(dict.fromkeys(refused.values()))
    assert {(row,call) for row,o in table['cells'].items() for call in o}==set(cases)
    assert [(row,call) for row,call in cases if not as_expected(row, call, table['cells'][row][call])]==[]

def test_every_day_has_every_row_and_every_call():
    quick = [(row,call) for row,call in cases if not is_slow(row, call)]
    assert {r for r,_ in quick}=={*applications, *options} and {c for _,c in quick}=={*calls}

def test_every_exception_is_a_case(): assert {*refused} <= set(cases)

def test_every_trap_has_a_test_or_a_reason():
    cells = json.loads((root/'nbs'/'tutorials'/'fastai_traps.ipynb').read_text())['cells']
    lines = [[o.strip() for o in l.strip().strip('|').split(' | ')] for c in cells for l in ''.join(c['source']).splitlines() if re.match(r'\| \d+ \|', l)]
    known = {n for f in (root/'tests').glob('test_*.py') for n in re.findall(r'^def (test_\w+)', f.read_text(), re.M)}
    assert [int(l[0]) for l in lines]==list(range(1, 46))
    for number,trap,here,*shown in lines:
        names = re.findall(r'`(test_\w+)`', ' '.join(shown))
        assert set(names) <= known and len(here)>10, f'trap {number}'
        assert names or 'nothing can go wrong' in here, f'trap {number} has neither a test nor a reason'
