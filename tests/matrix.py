"""Every public call against every kind of learner and training option that fastai users combine: what each case
asserts, and what is expected of it. It works, or is refused with a reason that names it.

`test_integration.py` runs the cases; `python tests/integration_table.py` writes what happened to
`data/works_with.json`, which the lesson *Works with* shows."""
import hashlib, warnings
from pathlib import Path

import numpy as np
from fingerprints import bits, global_generators, same
from learners import *
from superconv_fastai.all import *

# ---- what a case looks at ----

def optimizer(learn):
    "Hypers and state of the optimizer"
    if learn.opt is None: return None
    if isinstance(learn.opt, OptimWrapper): return bits(learn.opt.opt.state_dict())
    state = [dict(learn.opt.state.get(p, {})) for ps in learn.opt.param_lists for p in ps]
    return bits([dict(h) for h in learn.opt.hypers] + state)

def trained(learn):
    "All that training leaves"
    return dict(
        weights = bits(learn.model.state_dict()),
        grads = [bits(p.grad) for p in learn.model.parameters()],
        opt = optimizer(learn),
        modes = [m.training for m in learn.model.modules()],
        rngs = global_generators(),
        loaders = [bits(getattr(dl, 'rng', None)) for dl in learn.dls.loaders])

def everything(learn):
    "All of a learner that a call could change"
    def of_callback(cb): # without what it has open
        return type(cb).__name__, bits(
            {k: v for k, v in sorted(vars(cb).items()) if k not in ('learn', 'file', 'writer', 'plt')}
        )
    def of_file(f): return hashlib.sha1(f.read_bytes()).hexdigest()
    return dict(
        **trained(learn),
        ids = [id(p) for p in learn.model.parameters()],
        trainable = [p.requires_grad for p in learn.model.parameters()],
        hidden = [bits({k:v for k,v in vars(m).items() if k[0]!='_'}) for m in learn.model.modules()],
        attrs = bits({k:v for k,v in vars(learn).items() if k not in ('path','lock')}),
        autocast = torch.is_autocast_enabled('cpu'),
        cbs = [of_callback(cb) for cb in learn.cbs],
        files = {str(f):of_file(f) for f in sorted(Path(learn.path).rglob('*')) if f.is_file()})

def hypers(learn): return [[h[k] for h in learn.opt.hypers if k in h] for k in ('lr','mom')]

class Steps(Callback):
    "The LR of each group at every step that the optimizer really takes"
    order,run_valid = 20,False
    def __init__(self): self.seen = []
    def before_step(self): self.seen.append([h['lr'] for h in self.learn.opt.hypers])

def naive_places(case, learn, n_epoch):
    "Optimizer steps in the plan, and those of them that the fit gets to, counted batch by batch"
    sizes = [len(b[-1]) for b in learn.dls.train]
    n_acc = getattr(first(learn.cbs, risinstance(GradientAccumulation)), 'n_acc', 1)
    n,count,places = 0,0,[]
    def reached(epoch, i):
        if case=='ShortEpochCallback': return i<=4
        if case=='a callback that cancels the fit': return epoch*len(sizes)+i<=4
        return not (case=='EarlyStoppingCallback' and epoch>1)
    for epoch in range(n_epoch):
        for i,size in enumerate(sizes):
            if reached(epoch, i): places.append(n)
            count += size
            if count>=n_acc: n,count = n+1,0
    return n,[p for p in dict.fromkeys(places) if p<n]

# ---- the calls: each makes its learners by `make(seed)`, and asserts what the call promises ----

def call_fit(case, make, path, n_epoch):
    """LR and momentum of each step are those of the schedule; the network trains; lr and momentum are put back; the
    learner goes on"""
    n,places = naive_places(case, make(0, path), n_epoch)
    learn,steps = make(0, path),Steps()
    if learn.opt is None: learn.create_opt()
    before,had = hypers(learn),[bool(h.get('mom')) for h in learn.opt.hypers]
    weights = [p.detach().clone() for p in learn.model.parameters()]
    learn.fit_superconv(n_epoch, cbs=steps)
    learn.opt.set_hyper('lr', learn.lr)
    tops,used = [h['lr'] for h in learn.opt.hypers],learn.recorder.hps_by_group
    learn.opt.set_hypers(lr=before[0])
    assert np.array_equal(np.array(used['lr']), one_cycle(n, tops).values()[places])
    if any(had): assert np.array_equal(np.array(used['mom'])[:,0], momentum_cycle(n, learn.moms).values()[places])
    if case in skips: assert 0 < len(steps.seen) < len(used['lr']) and all(s in used['lr'] for s in steps.seen)
    elif case not in own_steps: assert steps.seen==used['lr']
    assert learn.recorder.hps['lr']==[o[-1] for o in used['lr']] and hypers(learn)==before
    moved = [not torch.equal(a, b) for a,b in zip(weights, learn.model.parameters()) if b.requires_grad]
    assert sum(moved) > len(moved)*(.5 if case==swaps_head else .7), 'few weights were trained'
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
        def values(named): return [b[1:3]+b[4:] for _,b in named]
        assert values(bits(load_learner(learn.path/'kept.pkl').model.state_dict()))==values(weights)
    learn.fit_superconv(1)
    assert len(learn.recorder.hps['lr'])>0

def call_superconverge(case, make, path, n_epoch):
    "It finds an LR, and after the search the run is to the bit what `fit_superconv` gives"
    learn = make(0, path)
    report = learn.superconverge(n_epoch, search=60)
    twin = make(0, path)
    twin.fit_superconv(n_epoch, report.lr_max)
    same(*({k:v for k,v in trained(l).items()} for l in (learn, twin)))
    lrs = report.lr_max if isinstance(report.lr_max, list) else [report.lr_max]
    assert all(0<lr<math.inf for lr in lrs) and report.phases[-1].found['reason']
    assert len(report.table())>1 or 'probe' in repr(report) or 'probe' in ' '.join(report.notes)

def trainings(case):
    "Epochs that a learner has trained before a call that must leave it as it was"
    if case=='IterableDataset without a length': return [0] # fastai itself cannot train without a length
    return [0,1] if case in applications and case not in large[:2] or case in kinds or case=='plain' else [1]

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
    if case=='a callback that cancels the fit':
        assert 'A callback ended the test after 4 of 10 steps' in repr(res)
        return
    assert (
        np.allclose(res.lrs, np.linspace(0, 5 * top(learn), 11)[[0, 3, 7, 10]])
        and len(res.step_losses) == 10
        and len(res.table()) == 4
    )
    assert all(np.isfinite(v).all() for v in (res.scores, res.valid_losses, res.step_losses))

def observer(mode):
    def res(case, make, path, n_epoch):
        "Training is to the bit what it is without, and there are estimates"
        ends,est = [],HessianFreeLR(mode, every=2)
        for cbs in ([], [est]):
            learn = make(0, path)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter('always')
                learn.fit_superconv(n_epoch, cbs=cbs)
            ends.append((trained(learn), bits([v[:2] for v in learn.recorder.values])))
        same(ends[0][0], ends[1][0])
        assert ends[0][1]==ends[1][1]
        no_estimate = [str(o.message) for o in said if 'there is no estimate' in str(o.message)]
        if no_estimate: return f'says: {no_estimate[0]}'
        assert len(est.estimates)
        assert est.estimates.raw.notna().any() or case in takes_turns and est.estimates.reason.all()
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
    rng,metric = torch.get_rng_state(),'valid_loss' if case in ('GANLearner','a negative loss') else None
    fits = dict(cycle=Learner.fit_superconv, constant=Learner.fit)
    res = compare_fits(partial(make, path=path), fits, 1, seeds=1, metric=metric, progress=False)
    assert torch.equal(rng, torch.get_rng_state())
    assert set(res.ends.status)=={'stopped' if case=='a callback that cancels the fit' else 'finished'}
    cycle,constant = res.ends.set_index('arm').loc[['cycle','constant']].itertuples()
    learn = make(0, path)
    n,places = naive_places(case, learn, 1)
    lrs = one_cycle(n, top(learn)).values()[places]
    assert math.isclose(constant.lr, top(learn)) and any(
        math.isclose(cycle.lr, v) for v in (lrs if case in skips else lrs[-1:])
    )
    assert 0<cycle.step==constant.step<=len(places) and math.isfinite(cycle.metric) and math.isfinite(cycle.valid_loss)

@untouched
def call_reduced(case, learn):
    "Less weight decay inside, and the old one afterwards"
    with learn.reduced_regularization(wd=0.):
        rows = learn.regularizers()
        assert set(rows[rows.kind=='wd'].value)=={0.}

def call_tune(case, make, path, n_epoch):
    "One of three LRs, the best of those tried"
    def fit(learn, n, lr): learn.fit_superconv(n, lr)
    lrs = [r*top(make(0, path)) for r in (.1,.3,1.)]
    tuned = tune_lr(partial(make, path=path), fit, lrs, 1, extend=0, progress=False)
    assert any(math.isclose(tuned.lrs[1], lr) for lr in lrs) and len(tuned.table())==3

def call_resume(case, make, path, n_epoch):
    "Interrupted in the second epoch and resumed by another learner is undisturbed"
    class Cut(Callback):
        run_valid = False
        def before_batch(self):
            if self.epoch==1 and self.iter==1: raise KeyboardInterrupt('power cut')
    ends = []
    for cut in (False, True):
        learn,checkpoint = make(0, path),path/f'{cut}.ckpt'
        if cut:
            try: learn.fit_superconv(3, resume=checkpoint, cbs=Cut())
            except KeyboardInterrupt: pass
            learn = make(0, path)
        learn.fit_superconv(3, resume=checkpoint)
        ends.append({k:v for k,v in trained(learn).items() if k!='modes'})
    same(*ends)

calls = {
    'fit_superconv': call_fit,
    'lr_range_test': call_range_test,
    "HessianFreeLR('paper')": observer('paper'),
    "HessianFreeLR('secant')": observer('secant'),
    "HessianFreeLR('probe')": observer('probe'),
    'curvature_lr': call_curvature,
    'curvature_lr_find': call_curvature_find,
    'regularizers': call_regularizers,
    'balance_regularization': call_balance,
    'compare_fits': call_compare,
    'superconverge': call_superconverge}
of_kinds = calls | {'reduced_regularization': call_reduced, 'tune_lr': call_tune, 'resume': call_resume} # of every kind

# ---- what is expected; all else works ----

skips = ('a scaler that skips steps', 'bfloat16 autocast on the CPU, a scaler that skips a step',
         'fp16, accumulation and clipping at once')
own_steps = ('a callback that takes the step itself',) # fastai's events of a step do not run
takes_turns = 'GANLearner','alternating optimisation' # the next mini-batch may train other parameters
no_export = ('TensorBoardCallback', 'WandbCallback, offline', 'CSVLogger', # fastai cannot pickle what they have open
             'GANLearner') # export makes an optimizer of what is trainable, and finds the state of one for all
swaps_head = 'self-supervised, swaps head and optimizer' # the head of the learner itself does not train

# all run fit_superconv
fits = 'fit_superconv',"HessianFreeLR('paper')","HessianFreeLR('secant')","HessianFreeLR('probe')"
adaptive = 'Adam','ranger','Lookahead','Larc','Lamb','torch AdamW','torch RMSprop','torch Adagrad','torch NAdam'
refused = {
    **{
        ('IterableDataset without a length', call): 'has no length'
        for call in calls
        if call not in ('curvature_lr', 'regularizers')
    },
    **{
        (row, call): 'both drive lr or momentum: remove one of them'
        for row in ('ReduceLROnPlateau', 'ParamScheduler of lr')
        for call in (*fits, 'balance_regularization', 'compare_fits', 'superconverge')
    },
    **{
        (row, f"HessianFreeLR('{mode}')"): "are not its LR times a gradient: use mode='probe'"
        for row in adaptive
        for mode in ('paper', 'secant')
    },
    **{
        ('an optimizer that has copies of the parameters', call): "the optimizer's parameters are copies of the model's"
        for call in ("HessianFreeLR('secant')", "HessianFreeLR('probe')", 'curvature_lr_find')
    },
    ('a callback that cancels the fit',
     'balance_regularization'): 'a callback of the learner ended a run of the search early',
    ('ShortEpochCallback', 'lr_range_test'): 'a callback cancels validation, so the range test cannot measure',
    ('ShortEpochCallback', 'balance_regularization'): 'a callback of the learner cancels validation',
    ('ShortEpochCallback', 'compare_fits'): 'a callback cancels validation in the run of',
    **{
        ('a callback that takes the step itself', call): 'took no optimizer step that fastai knows of'
        for call in ('compare_fits', 'tune_lr')
    },
    ('a callback that takes the step itself',
     'curvature_lr'): 'a callback takes the backward pass of the mini-batch itself',
    ('a callback that takes the step itself',
     'curvature_lr_find'): 'batches in a row went by without an optimizer step',
    ('a metric that raises before the first step',
     'lr_range_test'): "the metric 'precision_of_9' raises ZeroDivisionError",
    ('a frozen embedding, sparse gradients', 'balance_regularization'): 'optimizers add no decay to those',
    ('GANLearner', 'superconverge'): 'given: this learner trains with several optimizers or losses',
    (swaps_head, 'resume'): "it must be a checkpoint of this fit, and it is another's",
}

silent = {
    ('a callback that takes the step itself',
     f"HessianFreeLR('{mode}')"): 'no optimizer step was seen, so there is no estimate'
    for mode in ('paper', 'secant', 'probe')
}

cases = [*((row, call) for row in (*applications, *options) for call in calls),
         *((row, call) for row in kinds for call in of_kinds)]
# Measured: of 222 s (one process, one core) the cases of these rows take 106 s, and the three searches of most others
# 33 s.
# The rest, every row and every call, are for every day.
large = ('vision_learner', 'unet_learner', 'language_model_learner', 'model.compile()',
         'model.compile() through AOT autograd') # of these only fit_superconv
# many runs each: of these rows only
searches = 'curvature_lr_find','balance_regularization','compare_fits','tune_lr','superconverge'
searched = ('tabular_learner', 'plain', 'IterableDataset without a length', 'ReduceLROnPlateau',
            'TerminateOnNaNCallback', 'CSVLogger', 'ProgressCallback, ShowGraphCallback', 'ShortEpochCallback',
            'a callback that cancels the fit',
            'a metric that raises before the first step')  # and of those that a search has to do something about

def is_slow(row, call):
    if row in large: return call!='fit_superconv'
    often = searches if row not in kinds else (*searches, "HessianFreeLR('paper')", "HessianFreeLR('secant')", 'resume')
    return call in often and row not in searched

def expected(row, call):
    "'works', or the words with which it is refused, or says that there is no answer"
    if (row,call) in silent: return 'says: '+silent[row,call]
    return 'refused: '+refused[row,call] if (row,call) in refused else 'works'

def as_expected(row, call, got):
    want,_,words = expected(row, call).partition(': ')
    return got.startswith(want) and words in got if words else got==want

def outcome(row, call, path):
    "What happens: 'works', 'refused' or 'says' with the message, or whatever else is raised"
    make = (applications | options | kinds)[row]
    made,weights = [],[]
    def remember(seed=0, path=path):
        made.append(make(seed, path))
        weights.append(bits(list(made[-1].model.parameters())))
        return made[-1]
    n_epoch = 3 if row=='EarlyStoppingCallback' else 1 if row in applications and row!='text_classifier_learner' else 2
    try: return of_kinds[call](row, remember, path, n_epoch) or 'works'
    except ValueError as e:
        if call in fits:
            assert bits(list(made[-1].model.parameters()))==weights[-1], f'refused after it had trained: {e}'
        return f'refused: {e}'
