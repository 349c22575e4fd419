"What a learner is made of, to the bit, and whether a call has changed any of it."
import hashlib, os, random

import numpy as np, torch
from fastai.basics import *
from small_learners import Noisy, busy_learner

def bits(x):
    "A comparable copy of `x`, to the bit"
    if isinstance(x, Tensor):
        t = (x.detach().to_dense() if x.is_sparse else x.detach()).cpu().contiguous()
        digest = hashlib.sha1(t.view(-1).view(torch.uint8).numpy()).hexdigest() if t.numel() else ''
        return ('tensor', str(x.dtype), tuple(x.shape), x.requires_grad, digest)
    if isinstance(x, np.ndarray): return ('array', x.dtype.str, x.tobytes())
    if isinstance(x, dict): return [(k if isinstance(k, str) else None, bits(v)) for k,v in x.items()]
    if isinstance(x, (list,tuple,L)): return [bits(o) for o in x]
    if isinstance(x, random.Random): return x.getstate()
    return repr(x) if isinstance(x, (int,float,str,bool,type(None))) else type(x).__name__

def global_generators(): return random.getstate(), bits(np.random.get_state()[1]), bits(torch.get_rng_state())

def fingerprint(learn):
    "All of a learner that training may change, and the global generators"
    m,o = learn.model,learn.opt
    def of_module(s):
        return s.training, bits(dict(s._buffers)), bits(getattr(s, 'calls', None)), bits(getattr(s, 'hidden', None))
    def of_callback(cb):
        hidden = ('learn','start_epoch') if isinstance(cb, Noisy) else ('learn','start_epoch','log')
        return type(cb).__name__, bits({k:v for k,v in vars(cb).items() if k not in hidden})
    def of_optimizer():
        return (
            type(o).__name__,
            bits([dict(h) for h in o.hypers]),
            [bits(dict(o.state[p])) for p in m.parameters() if p in o.state],
        )
    return dict(
        modules = [(n, *of_module(s)) for n,s in m.named_modules()],
        params = [(n, bits(p), bits(p.grad), id(p)) for n,p in m.named_parameters()],
        opt = None if o is None else of_optimizer(),
        cbs = [of_callback(cb) for cb in learn.cbs],
        learn = bits({k:v for k,v in vars(learn).items() if k not in ('path','lock')}),
        names = sorted(vars(learn)),
        rng = [bits(g) for dl in learn.dls.loaders for g in [dl.rng]],
        globals = (*global_generators(), torch.is_autocast_enabled('cpu')))

def same(a, b):
    "Two fingerprints agree. Parameters may be other objects with the same values: those of another learner"
    assert a.keys()==b.keys()
    def values(k, v): return [p[:3] for p in v] if k=='params' else v
    for k in a: assert values(k, a[k])==values(k, b[k]), f'{k} changed'

def timeless(df): return df.drop(columns='seconds')

# ---- a call that must leave nothing behind ----

def story(kind, tmp_path, disturb, trained=True):
    "Fingerprints before and after the disturbance, and after what comes then"
    path = tmp_path/str(disturb)
    path.mkdir(exist_ok=True)
    learn = busy_learner(kind, path)
    if trained: learn.fit(1)
    before,files = fingerprint(learn),sorted(os.listdir(path))
    if disturb: disturb(learn)
    after = fingerprint(learn)
    assert sorted(os.listdir(path))==files
    learn.fit(1)
    return before,after,fingerprint(learn)

def twins(kind, tmp_path, disturb, trained=True):
    "A learner that was disturbed goes on as its twin that was left alone"
    _,_,alone = story(kind, tmp_path, None, trained)
    before,after,then = story(kind, tmp_path, disturb, trained)
    same(before, after)
    assert [p[3] for p in before['params']]==[p[3] for p in after['params']]
    same(alone, then)
