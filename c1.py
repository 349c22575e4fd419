import re
p='/tmp/compare/compare.txt'; s=open(p).read()
def cell(i): 
    m=re.search(r'^%%%% '+i+r' \w+\n.*?(?=^%%%% |\Z)', s, flags=re.M|re.S); return m
def put(i, text):
    global s
    m=cell(i); s=s[:m.start()]+text.strip('\n')+'\n'+s[m.end():]
put('e2786dfb','''
%%%% e2786dfb code
#| export
import gc, hashlib, math, time
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
import numpy as np, pandas as pd
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.core import *
from superconv_fastai.events import *
from superconv_fastai.fit import *
from superconv_fastai.loaders import batch_sizes
from superconv_fastai.metrics import *
from superconv_fastai.optim import *
from superconv_fastai.runs import RunLog, describe, read_log, run_jobs, seed_all
from superconv_fastai.schedule import *
from superconv_fastai.show import *
from superconv_fastai.show import progress as progress_over
from superconv_fastai.state import save_rngs
''')
put('9d3818a6','''
%%%% 9d3818a6 markdown
## One run

Two runs are scored by the same data when their first held-out batch is the same. All that is in it counts: tensors, arrays, texts and numbers, in lists, dictionaries and objects.
''')
put('019815a3','''
%%%% 019815a3 code
#| export
def _add_to_hash(h, o, depth=8):
    "Feed `h` with all that a part of a batch holds"
    if isinstance(o, torch.Tensor):
        t = o.detach().cpu()
        if t.layout is not torch.strided: t = t.to_dense()
        h.update(repr((tuple(t.shape), t.dtype)).encode() + t.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(o, np.ndarray) and o.dtype!=object: h.update(repr((o.shape, o.dtype)).encode() + o.tobytes())
    elif o is None or isinstance(o, (str,bytes,int,float,complex,np.generic)): h.update(f'{type(o).__name__} {o!r};'.encode())
    elif depth:
        h.update(f'{type(o).__name__}('.encode())
        if isinstance(o, Mapping): parts = [p for item in o.items() for p in item]
        elif isinstance(o, (list,tuple,np.ndarray,L)): parts = list(o)
        elif isinstance(o, (set,frozenset)): parts = sorted(map(repr, o))
        else: parts = [p for item in getattr(o, '__dict__', {}).items() for p in item]
        for part in parts: _add_to_hash(h, part, depth-1)

def _batch_hash(b):
    "A hash of a batch"
    h = hashlib.sha256()
    for o in b: _add_to_hash(h, o)
    return h.hexdigest()[:16]
%%%% new code
#| hide
x,y = torch.arange(6.).view(3,2),torch.arange(3)
test_eq(_batch_hash((x,y)), _batch_hash((x.clone(),y)))
test_eq(_batch_hash((x,y)), '{HASH}') # as logs have it
class Graph:
    def __init__(self, nodes): self.nodes = nodes
def unlike(a, b): assert _batch_hash((a,y))!=_batch_hash((b,y)), (a, b)
unlike({'pixels':x}, {'pixels':x+1})
unlike({'a':{'b':x}}, {'a':{'b':x+1}})
unlike([x, [x]], [x, [x+1]])
unlike(['no','yes','no'], ['no','yes','yes'])
unlike(x.numpy(), x.numpy()+1)
unlike(Graph(x), Graph(x+1))
unlike(x.to_sparse(), (x+1).to_sparse())
%%%% new markdown
A run is recorded by a callback: after each epoch the optimizer steps so far, training loss, held-out loss, the metric that scores, the LR, and the seconds. It ends a run whose training loss, or a weight at the end of an epoch, is no longer finite. What `lr_find` and `validate` do inside a fit does not count, and neither does the loss of a batch that a callback skipped.
%%%% new code
#| export
class _RunRecorder(EventCallback):
    "Record a run, epoch by epoch, and end it when it diverges or has no score"
    order = Recorder.order+1 # trackers may end the run after it
    def __init__(self, metric):
        self.metric,self.rows,self.lrs,self.held_out,self.start = metric,[],[],None,time.perf_counter()
        self.loss,self.diverged,self.in_epoch,self.cancelled,self.no_score = None,False,False,False,None

    def __call__(self, event_name):
        if not (self.learn.lock.locked() or hasattr(self.learn, 'lr_finder')): super().__call__(event_name)

    def before_epoch(self):
        if self.diverged: raise CancelFitException()
        self.in_epoch,self.total,self.items,self.valid = True,0.,0,{}

    def before_batch(self):
        if not self.learn.training and self.held_out is None: self.held_out = _batch_hash((*self.learn.xb, *self.learn.yb))

    def after_cancel_step(self): self.cancelled = True
    def after_step(self):
        skipped,self.cancelled = self.cancelled,False
        if skipped: return
        self.lrs.append(float(self.learn.opt.hypers[-1]['lr']))
        self.loss = self.batch_loss()
        self.diverged |= not math.isfinite(self.loss) # a step that fp16 skips does no harm

    def batch_loss(self): return float(self.learn.to_detach(self.learn.loss.mean()))

    def after_batch(self):
        learn = self.learn
        if not learn.training: return
        stepped,loss,self.loss = self.loss is not None,ifnone(self.loss, self.batch_loss()),None
        if stepped or math.isfinite(loss):
            n = n_targets(learn.yb, learn.xb)
            self.total,self.items = self.total+loss*n,self.items+n
        if learn.iter==learn.n_iter-1: self.diverged |= not all(p.isfinite().all() for p in learn.model.parameters())
        if self.diverged: raise CancelTrainException() # what the network is worth now is measured, as ever

    def after_validate(self):
        if not self.in_epoch or getattr(self.learn.recorder, 'cancel_valid', False): return
        self.valid = self.named(self.learn.recorder.log)

    def named(self, values):
        "The recorder's `values` end with held-out loss and metrics; of two of one name the first counts"
        names = ['valid_loss', *self.learn.metrics.attrgot('name')]
        return dict(reversed(list(zip(names, values[-len(names):]))))

    def after_epoch(self):
        if self.in_epoch: self.close() # resumed runs skip epochs
        if self.diverged or self.no_score: raise CancelFitException()

    def close(self):
        "An epoch is over"
        self.in_epoch = False
        score = self.valid.get(self.metric)
        try:
            if score is not None: as_score(self.metric, score)
        except ValueError as e: self.no_score = None if self.diverged else str(e)
        self.rows.append([len(self.lrs), as_number(self.total/max(self.items, 1)), as_number(self.valid.get('valid_loss')),
                          as_number(score), self.lrs[-1] if self.lrs else None, time.perf_counter()-self.start])
''')
s=s.replace("w = _Watch('accuracy')","w = _RunRecorder('accuracy')")
put('f4839d4e','''
%%%% new markdown
`make_learner` is called in the process that trains, and what it gives is checked there.
%%%% f4839d4e code
#| export
_columns = 'step train_loss valid_loss metric lr seconds'.split()

def _thin(x, n=200):
    "At most `n` evenly spaced values of `x`, first and last among them, and their places"
    i = np.unique(np.linspace(0, len(x)-1, min(n, len(x))).round().astype(int))
    return [x[j] for j in i],i

def _weight_sum(model):
    "The sum of all absolute weights: tells networks apart, and does not mind a machine's rounding"
    return sum(float(p.detach().abs().double().sum()) for p in model.parameters())

def _learner_of_seed(make_learner, seed):
    "A new learner that can be compared, without a bar"
    seed_all(seed)
    learn = make_learner(seed)
    if not isinstance(learn, Learner):
        refuse('make_learner', make_learner, f'a function that returns a Learner, and make_learner({seed}) is {type(learn).__name__}')
    sizes = [batch_sizes(dl)[0] for dl in learn.dls.loaders] # refuses a loader without a length
    if len(sizes)<2 or not sizes[1]: raise ValueError('a comparison scores by held-out data, and the learner has none')
    learn.remove_cbs([ShowGraphCallback, ProgressCallback]) # the graph needs the bar
    learn.logger,learn.create_mbar = noop,False
    return learn
%%%% new code
#| export
def _record(learn, fit, metric, arm, n_epoch, seed):
    "Train once, and measure what the network is worth if the fit ended between two evaluations"
    rec = _RunRecorder(metric)
    learn.add_cb(rec)
    try: fit(learn, n_epoch)
    except Exception as e:
        if not rec.diverged: # a metric may refuse what a diverged network predicts
            if hasattr(e, 'add_note'): e.add_note(f'in the run of {arm!r}, n_epoch={n_epoch}, seed={seed}')
            raise
    if cut := rec.in_epoch:
        with suppress(*[Exception]*rec.diverged): rec.valid = rec.named(learn.validate())
        rec.close()
    if rec.no_score: raise ValueError(rec.no_score)
    if not rec.lrs: raise ValueError(f'the fit {arm!r} took no optimizer step')
    if not rec.valid and not rec.diverged:
        raise ValueError(f'a callback cancels validation in the run of {arm!r}, so there is no score: remove that callback')
    return rec,'diverged' if rec.diverged else 'stopped' if cut or len(rec.rows)<n_epoch else 'finished'

def _measured(measure, learn):
    "The numbers that `measure` takes"
    res = {} if measure is None else measure(learn)
    for k,v in res.items():
        with suppress(TypeError, ValueError): # a number, also one that is not finite
            float(v)
            continue
        refuse('measure', measure, f'a function that returns numbers by name, and its {k!r} is no number')
    return {k:as_number(v) for k,v in res.items()}

def _run(make_learner, fits, identities, metric, lower_is_better, measure, arm, n_epoch, seed):
    "Train once: what happened, as JSON"
    learn,fit = _learner_of_seed(make_learner, seed),fits[arm]
    name = scoring_metric_name(learn, metric)
    lower,guess = lower_is_better_of(learn, name, lower_is_better)
    start = _weight_sum(learn.model)
    seed_all(seed, learn.dls)
    rec,status = _record(learn, fit, name, arm, n_epoch, seed)
    res = dict(fit=identities[arm,n_epoch], status=status, metric=name, lower_is_better=lower, epochs=rec.rows,
               lrs=_thin(rec.lrs)[0], weights=as_number(start), held_out=rec.held_out, measured=_measured(measure, learn),
               note=getattr(fit, 'note', lambda n: '')(n_epoch), guess=guess)
    if torch.cuda.is_initialized():
        del learn, rec # a learner is a cycle, and holds memory until it is found
        gc.collect()
    return res
''')
put('698deccb','''
%%%% new markdown
What a file holds is not trusted: each run in it is checked before it is used.
%%%% 698deccb code
#| export
def _is(v, *types): return isinstance(v, types) and not isinstance(v, bool)
def _is_number_or_none(v): return v is None or _is(v, int, float) and -1e308<=v<=1e308

def _is_key(key):
    "`(fit's name, n_epoch, seed)`?"
    return (len(key)==3 and isinstance(key[0], str) and _is(key[1], int) and 1<=key[1]<2**53
            and _is(key[2], int) and 0<=key[2]<2**32)

def _is_epoch(row):
    "What the recorder says of an epoch?"
    return (isinstance(row, list) and len(row)==len(_columns) and _is(row[0], int) and 0<=row[0]<2**53
            and all(map(_is_number_or_none, row)))

def _is_run(key, run):
    "Is this what `_run` returns?"
    def filled(k, ok): return isinstance(run.get(k), list) and len(run[k])>0 and all(map(ok, run[k]))
    if not (_is_key(key) and filled('epochs', _is_epoch) and filled('lrs', _is_number_or_none)): return False
    return (all(a[0]<=b[0] for a,b in zip(run['epochs'], run['epochs'][1:]))
            and run.get('status') in ('finished','diverged','stopped')
            and all(isinstance(run.get(k), str) for k in ('fit','metric','note'))
            and isinstance(run.get('lower_is_better'), bool) and _is_number_or_none(run.get('weights'))
            and isinstance(run.get('held_out'), (str,type(None)))
            and isinstance(run.get('measured'), dict) and all(map(_is_number_or_none, run['measured'].values())))
''')
open(p,'w').write(s)
