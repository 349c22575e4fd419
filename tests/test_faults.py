"""What goes wrong in practice: kills, exceptions anywhere, NaN, memory and disks that are full, files of others.
Nothing finished is lost."""
import json, multiprocessing, os, pickle, re, resource, signal, sys, warnings
import contextlib
from contextlib import contextmanager, suppress
from pathlib import Path
import numpy as np, pytest, torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.fp16 import MixedPrecision
from fingerprints import bits, fingerprint, same, timeless
from resumable import Cut, fit, learner, seen
from small_learners import busy_learner, class_learner as small, make_learner, plain, ridge
from superconv_fastai.all import *
from superconv_fastai.checkpoint import read_checkpoint
from superconv_fastai.runs import RunLog, read_log

OutOfMemory = getattr(torch, 'OutOfMemoryError', torch.cuda.OutOfMemoryError)

# ---- kill -9 ----
# The moment is a count of function calls, Python's and C's, not a time: it does not depend on the machine, and falls
# between any two lines of model, callback, writing and renaming. The process is a fork of this one, which has imported
# everything.

fork = multiprocessing.get_context('fork')

def in_fork(f, kill_at=None):
    "Run `f` in a process that is killed at its `kill_at`-th call: how many there were, or None if it was killed"
    def child(calls):
        n = 0
        def count(frame, event, arg):
            nonlocal n
            if event in ('call','c_call'):
                n += 1
                if n==kill_at: os.kill(os.getpid(), signal.SIGKILL)
        torch.set_num_threads(1)
        sys.setprofile(count)
        f()
        sys.setprofile(None)
        calls.value = n
    calls = fork.Value('q', 0)
    p = fork.Process(target=child, args=(calls,))
    p.start()
    p.join()
    assert p.exitcode in (0, -signal.SIGKILL)
    return calls.value if p.exitcode==0 else None

def moments(f, n=20, seed=0): return np.random.default_rng(seed).integers(1, in_fork(f), n).tolist()

def go(kind, path, seed=0):
    # what is in the file counts, not what the learner comes with
    learn = learner(kind, path.parent, seed if path.exists() else 0)
    fit(learn, kind, 3, cbs=Finished(path.with_name('finished')), resume=path)
    return learn

class Finished(Callback):
    "Notes in a file each epoch that was trained, just before its checkpoint is written"
    order = 999
    def __init__(self, file): self.file,self.any = file,False
    def before_train(self): self.any = True
    def after_epoch(self):
        if self.any:
            with open(self.file, 'a') as f: f.write(f'{self.epoch}\n')

@pytest.mark.parametrize('kind', ['sgd','accumulate'])
def test_killed_fits_go_on(kind, tmp_path):
    """Each fit is killed, resumed, killed, and resumed to its end: as if nothing had been, and no epoch that was
    written is trained again"""
    alone = learner(kind, tmp_path)
    fit(alone, kind, 3)
    want,killed = seen(alone),0
    (tmp_path/'count').mkdir()
    at = moments(lambda: go(kind, tmp_path/'count'/'ck'))
    for i,(a,b) in enumerate(zip(at[::2], at[1::2])):
        (tmp_path/str(i)).mkdir()
        path,trained = tmp_path/str(i)/'ck',[]
        for seed,k in enumerate((a, b)):
            killed += in_fork(lambda: go(kind, path, seed), k) is None
            trained = (path.parent/'finished').read_text().split() if (path.parent/'finished').exists() else []
            done = read_checkpoint(path)['epoch'] if path.exists() else 0 # readable, whenever it was killed
            assert len(set(trained))-1 <= done <= len(set(trained))
        learn = go(kind, path, 2)
        now = (path.parent/'finished').read_text().split()[len(trained):]
        assert now == [str(e) for e in range(done, 3)]
        same(want, seen(learn))
        assert set(os.listdir(path.parent)) <= {'ck','finished'}
    assert killed >= 10 # a resumed fit is shorter, so a few came to their end

def test_a_half_written_checkpoint_is_never_read(tmp_path, monkeypatch):
    "Killed while the bytes go to the disk"
    path = tmp_path/'ck'
    with suppress(KeyboardInterrupt): fit(learner('sgd', tmp_path), 'sgd', cbs=Cut(20), resume=path)
    whole = path.read_bytes()
    for share in (0, .1, .5, .999):
        def half(obj, f):
            f.write(whole[:int(share*len(whole))])
            f.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        def child():
            torch.save = half
            fit(learner('sgd', tmp_path), 'sgd', resume=path)
        assert in_fork(child) is None and path.read_bytes()==whole and (tmp_path/'.ck.part').exists()
    alone = learner('sgd', tmp_path)
    fit(alone, 'sgd')
    learn = learner('sgd', tmp_path, 1)
    fit(learn, 'sgd', resume=path)
    same(seen(alone), seen(learn))
    assert os.listdir(tmp_path)==['ck']

balance = dict(lr_max=.05, n_epoch=1, wds=[0.,1.,10.], seeds=2)
arms = dict(a=plain, b=partial(Learner.fit_superconv, lr_max=.1))
def search(path): return ridge().balance_regularization(**balance, path=path).runs
def comparison(path):
    return timeless(compare_fits(small, arms, [1,2], 3, path=path, progress=False).runs).values.tolist()

@pytest.mark.parametrize('kind,call', [('balance',search), ('comparison',comparison)])
def test_killed_searches_go_on(kind, call, tmp_path):
    """Killed at 20 random moments, on the same log until it is complete: what was in it stays, and the result is
    that of a search left alone"""
    want = call(None)
    at,k = moments(lambda: call(tmp_path/'count')),0
    n_runs = (tmp_path/'count').read_bytes().count(b'\n')-1
    while k < 20:
        path,before = tmp_path/f'log{k}',{}
        while k < 20:
            ended = in_fork(lambda: call(path), at[k]) is not None
            k += 1
            if path.exists() and path.read_bytes().count(b'\n'):
                now = read_log(kind, path)[1]
                assert before.items() <= now.items() and len(now) <= n_runs
                before = now
            if ended: break
        lines = path.read_bytes() if path.exists() else b''
        got = call(path)
        assert got == want
        # nothing twice
        assert path.read_bytes().startswith(lines[:lines.rfind(b'\n')+1]) and path.read_bytes().count(b'\n')==n_runs+1

# ---- a metric that cannot be computed ----

def never_predicted(preds, y): return 1/int((preds.argmax(1)==7).sum()) # of three classes

def test_a_metric_that_raises_stops_only_what_it_decides():
    def make(seed): return small(seed, metrics=[accuracy, never_predicted])
    b = make(0).balance_regularization(.05, 1, [0.,1.], seeds=2)
    assert all(r['loss'] is not None and r['metrics']['accuracy'] is not None for r in b.runs.values())
    assert not any('never_predicted' in r['metrics'] for r in b.runs.values())
    c = compare_fits(make, dict(a=plain, b=plain), 1, 1, progress=False)
    assert set(c.ends.status)=={'finished'}
    with pytest.raises(
        ValueError, match="the metric 'never_predicted' raises ZeroDivisionError: .* Choose another one with metric="
    ):
        compare_fits(make, dict(a=plain), 1, 1, metric='never_predicted', progress=False)

# ---- exceptions, anywhere ----

class Fault:
    "Raises `error` at the `n`-th call of the place where it is built in"
    def __init__(self, error=None, n=1): self.error,self.n = error,n
    def __call__(self):
        self.n -= 1
        if self.error is not None and self.n<=0: raise self.error

class FaultyNet(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault,self.net = fault,nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(.1), nn.ReLU(),
                                                  nn.Linear(8, 1))
    def forward(self, x):
        self.fault()
        return self.net(x)

class FaultyCallback(Callback):
    def __init__(self, fault, event):
        self.fault = fault
        setattr(self, event, fault)

def faulty(place, fault, **kwargs):
    "A learner in which `fault` is built in at `place`"
    learn = make_learner(shuffle=True, opt_func=partial(SGD, mom=.9), **kwargs)
    learn.model = FaultyNet(fault if place=='model' else noop)
    loss,mae_ = F.mse_loss,mae
    def loss_func(p, y, **kw):
        if place=='loss': fault()
        return loss(p, y, **kw)
    def metric(p, y):
        if place=='metric': fault()
        return mae_(p, y)
    learn.loss_func,learn.metrics = loss_func,[metric]
    if place.startswith('callback'): learn.add_cb(FaultyCallback(fault, place.partition('.')[2]))
    return learn

calls = dict(lr_range_test=lambda l: l.lr_range_test(.1, n_steps=20, n_evals=10, show_plot=False),
             curvature_lr=lambda l: l.curvature_lr(4), curvature_lr_find=lambda l: l.curvature_lr_find(n_steps=20),
             balance_regularization=lambda l: l.balance_regularization(.05, 2, [0.,1.], seeds=2))
places = ['model','loss','metric','callback.before_batch','callback.before_step']
errors = [(KeyboardInterrupt,'stop'), (ZeroDivisionError,'boom'), (OutOfMemory,
    'CUDA out of memory. Tried to allocate 20.00 GiB')]

@pytest.mark.parametrize('error', errors, ids=lambda e: e[0].__name__)
@pytest.mark.parametrize('place', places)
@pytest.mark.parametrize('call', calls)
def test_observers_leave_the_learner_as_it_was(call, place, error):
    "The error comes through as it is, or names the metric that raised it; the learner is untouched to the bit"
    if place=='metric' and call.startswith('curvature') or (place,call)==('callback.before_step','curvature_lr'):
        pytest.skip('it takes no metric, no step')
    if (place,call,error[0])==('metric','balance_regularization',ZeroDivisionError):
        pytest.skip('what a metric cannot compute does not matter there')
    fault = Fault()
    learn = faulty(place, fault)
    with suppress(KeyboardInterrupt): learn.fit_superconv(2, .01, cbs=Cut(13))
    fault.error,fault.n = error[0](error[1]),4
    before = fingerprint(learn)
    says = ValueError if (place,error[0])==('metric',ZeroDivisionError) else error[0] # names the metric
    with pytest.raises(says, match=error[1][:8]): calls[call](learn)
    same(before, fingerprint(learn))

@pytest.mark.parametrize('error', errors, ids=lambda e: e[0].__name__)
@pytest.mark.parametrize('place', [*places, 'callback.after_epoch'])
def test_a_fit_that_fails_goes_on(place, error, tmp_path):
    """lr, momentum, callbacks, logger, loss and autocast are put back, the finished epochs are in the file, and
    the same learner goes on"""
    alone = faulty(place, noop)
    alone.fit_superconv(4, .02)
    fault = Fault(error[0](error[1]), dict(metric=6, **{'callback.after_epoch':3}).get(place, 33))
    learn = faulty(place, fault)
    if place=='model': learn.add_cb(MixedPrecision('bf16'))
    logger,loss,cbs = learn.logger,learn.loss_func,list(learn.cbs)
    with pytest.raises(error[0], match=error[1][:8]), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        learn.fit_superconv(4, .02, resume=tmp_path/'ck')
    assert (learn.opt.hypers[0]['lr'],learn.opt.hypers[0]['mom'])==(.001,.9) and learn.logger is logger
    assert learn.loss_func is loss and list(learn.cbs)==cbs
    assert not torch.is_autocast_enabled('cpu') and not torch.is_autocast_enabled('cuda')
    assert torch.autocast_increment_nesting()==1
    torch.autocast_decrement_nesting()
    assert read_checkpoint(tmp_path/'ck')['epoch'] in (2,3) and os.listdir(tmp_path)==['ck']
    fault.error = None
    learn.fit_superconv(4, .02, resume=tmp_path/'ck')
    if place!='model':
        assert bits(learn.model.state_dict())==bits(alone.model.state_dict())
        assert bits(learn.recorder.values)==bits(alone.recorder.values)

@pytest.mark.parametrize('error', errors, ids=lambda e: e[0].__name__)
@pytest.mark.parametrize('place', ['model','loss','metric','callback.before_step'])
def test_a_comparison_that_fails_keeps_what_is_finished(place, error, tmp_path):
    fault,path = Fault(),tmp_path/'log'
    def make(seed): return faulty(place, fault, seed=seed)
    call = partial(compare_fits, make, dict(a=plain, b=plain), 1, 3, path=path, progress=False)
    fault.error,fault.n = error[0](error[1]),8 if place=='metric' else 30
    says = ValueError if (place,error[0])==('metric',ZeroDivisionError) else error[0] # names the metric
    with pytest.raises(says, match=error[1][:8]) as e: call()
    if issubclass(error[0], Exception) and hasattr(e.value, '__notes__'):
        assert "in the run of 'a'" in e.value.__notes__[-1] or "in the run of 'b'" in e.value.__notes__[-1]
    n = len(read_log('comparison', path)[1])
    assert n >= 1
    fault.error,first = None,path.read_bytes()
    c = call()
    assert path.read_bytes().startswith(first)
    assert timeless(c.runs).equals(timeless(compare_fits(make, dict(a=plain, b=plain), 1, 3, progress=False).runs))

def test_a_tuning_that_fails_keeps_what_is_finished(tmp_path):
    fault,path = Fault(OutOfMemory('CUDA out of memory'), 60),tmp_path/'log'
    def make(seed): return faulty('model', fault, seed=seed)
    call = partial(tune_lr, make, plain, [.01,.03,.1], 1, seeds=2, path=path, progress=False, extend=0)
    with pytest.raises(OutOfMemory): call()
    kept = read_log('comparison', path)[1]
    fault.error = None
    res = call()
    assert kept and kept.items() <= res.comparison._runs.items() and len(res.comparison._runs)==6

# ---- NaN ----

def broken(**kwargs):
    learn = busy_learner('sgd', **kwargs)
    learn.model.head.weight.data[:] = math.nan
    return learn

def test_nan_weights():
    "Every answer says that there is none, and why"
    learn = broken()
    before = fingerprint(learn)
    res = learn.lr_range_test(.1, n_steps=20, n_evals=10, show_plot=False)
    assert res.verdict.feasible is None and 'untrained network is not finite' in repr(res)
    assert not (c := learn.curvature_lr(3)).informative and 'not finite' in repr(c)
    assert not (c := learn.curvature_lr_find(n_steps=20)).informative and 'not finite' in repr(c)
    with pytest.raises(ValueError, match='the held-out loss is nan before the first step'):
        learn.balance_regularization(.05, 1, [0.,1.], seeds=2)
    same(before, fingerprint(learn))
    est = HessianFreeLR(every=2)
    learn.fit_superconv(2, .1, cbs=est)
    assert est.lr is None and set(est.estimates.reason) <= {'not finite'}
    assert learn.opt.hypers[0]['mom']==.9 and len(learn.recorder.hps['lr'])==2*len(learn.dls.train)

def test_nan_weights_in_a_comparison(tmp_path):
    def make(seed):
        learn = small(seed)
        learn.model[0].weight.data[:] = math.nan
        return learn
    c = compare_fits(make, dict(a=plain, b=plain), 2, 2, path=tmp_path/'log', progress=False)
    assert timeless(Comparison.load(tmp_path/'log').runs).equals(timeless(c.runs))
    assert (c.ends.status=='diverged').all() and c.table().diverged.tolist()==[2,2]
    t = tune_lr(make, plain, [.1,.2,.3], 1, progress=False, extend=1)
    assert t.untuned=={1:'no LR that was tried has a finite score'} and 'untuned' in repr(t)

def test_a_training_that_becomes_nan_is_kept_to_the_bit(tmp_path):
    class Spoil(Callback):
        def before_train(self):
            if self.epoch==1: self.model.head.bias.data[:] = math.nan
    def spoiled():
        learn = busy_learner()
        set_seed(1)
        return learn
    alone = spoiled()
    alone.fit_superconv(4, .01, cbs=Spoil())
    learn = spoiled()
    with suppress(KeyboardInterrupt): learn.fit_superconv(4, .01, cbs=[Spoil(), Cut(20)], resume=tmp_path/'ck')
    learn = spoiled()
    learn.fit_superconv(4, .01, cbs=Spoil(), resume=tmp_path/'ck')
    same(seen(alone), seen(learn))

# ---- disks ----

@contextmanager
def disk_full(size):
    """Files of this process cannot grow beyond `size` bytes: a write is cut in the middle by the kernel, as on a full
    disk"""
    was,handler = resource.getrlimit(resource.RLIMIT_FSIZE),signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, was[1]))
    try: yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)

def test_a_fit_on_a_full_disk_trains_on(tmp_path):
    "The old checkpoint stays, each epoch that is not kept is named, and the training is the undisturbed one"
    alone,learn,path = learner('sgd', tmp_path),learner('sgd', tmp_path),tmp_path/'ck'
    fit(alone, 'sgd')
    set_seed(42)
    with disk_full(2000), pytest.warns(UserWarning, match='no checkpoint of epoch') as w:
        learn.fit_superconv(5, .02, resume=path)
    same(seen(alone), seen(learn))
    texts = [str(o.message) for o in w if 'no checkpoint' in str(o.message)]
    assert len(texts)==5 and str(path) in texts[0] and 'there is none yet' in texts[0]
    assert 'Training goes on' in texts[0] and not os.listdir(tmp_path)
    class Full(Callback):
        "From this epoch on"
        def before_train(self):
            if self.epoch==2:
                self.cm = disk_full(2000)
                self.cm.__enter__()
        def after_fit(self): self.cm.__exit__(None, None, None)
    learn = learner('sgd', tmp_path)
    with pytest.warns(UserWarning, match='the last one is that of epoch 1'):
        learn.fit_superconv(5, .02, resume=path, cbs=Full())
    assert read_checkpoint(path)['epoch']==2 and os.listdir(tmp_path)==['ck']
    learn = learner('sgd', tmp_path, 1)
    fit(learn, 'sgd', resume=path)
    same(seen(alone), seen(learn))

@pytest.mark.parametrize('kind,call', [('balance',search), ('comparison',comparison)])
def test_a_search_on_a_full_disk_loses_nothing(kind, call, tmp_path, monkeypatch):
    "It goes on in memory, tries again with each run, and the log is whole as soon as there is room"
    want,path = call(None),tmp_path/'log'
    call(path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.unlink()
    for until in (3, 99):
        add,n = RunLog.add,[0]
        def counted(self, key, run):
            n[0] += 1
            with disk_full(len(lines[0]+lines[1]+lines[2][:99])) if n[0] <= until else contextlib.nullcontext():
                add(self, key, run)
        monkeypatch.setattr(RunLog, 'add', counted)
        with pytest.warns(UserWarning, match=r'finished runs could not be written to .*log \(.*\). The search goes on'):
            assert call(path)==want
        monkeypatch.setattr(RunLog, 'add', add)
        if until==3:
            assert len(read_log(kind, path)[1])==whole.count(b'\n')-1
            path.unlink()
    kept = read_log(kind, path)[1]
    assert 0 < len(kept) < whole.count(b'\n')-1
    assert call(path)==want and kept.items() <= read_log(kind, path)[1].items()

def test_a_disk_that_is_full_at_once(tmp_path):
    "Nothing runs before there is a log"
    made = []
    with (
        disk_full(10),
        pytest.raises(
            ValueError,
            match=r'^path=.*log.* is not allowed: it must be a file that can be written to: .*File too large',
        ),
    ):
        compare_fits(made.append, dict(a=plain), 1, 1, path=tmp_path/'log', progress=False)
    assert not made
    compare_fits(small, dict(a=plain), 1, 1, path=tmp_path/'log', progress=False) # what is left of it does no harm

def test_save_on_a_full_disk_keeps_the_old_file(tmp_path):
    c = compare_fits(small, dict(a=plain), 1, 2, progress=False)
    c.save(tmp_path/'c')
    was = (tmp_path/'c').read_bytes()
    with disk_full(len(was)//2), pytest.raises((OSError,ValueError), match='File too large'): c.save(tmp_path/'c')
    assert (tmp_path/'c').read_bytes()==was and os.listdir(tmp_path)==['c']

@pytest.mark.skipif(not Path('/proc/self').exists(), reason='needs a folder in which not even root can write')
def test_read_only_folders_are_refused_before_anything_happens(tmp_path):
    learn,bad = busy_learner(),Path('/proc/superconv.log')
    before = fingerprint(learn)
    for name,f in dict(resume=lambda: learn.fit_superconv(1, .1, resume=bad),
                       path=lambda: SuperconvCheckpoint(bad)).items():
        with pytest.raises(
            ValueError,
            match=f"^{name}='/proc/superconv.log' is not allowed: it must be a file in a folder that can be written to",
        ):
            f()
    for f in (lambda: learn.balance_regularization(.1, 1, [0.,1.], path=bad),
              lambda: compare_fits(small, dict(a=plain), 1, 1, path=bad, progress=False), lambda: tune_lr(small, plain,
                  [.1,.2,.3], 1, path=bad, progress=False)):
        with pytest.raises(
            ValueError, match="^path='/proc/superconv.log' is not allowed: it must be a file that can be written to"
        ):
            f()
    same(before, fingerprint(learn))

# ---- files of others ----

def test_nothing_in_the_package_unpickles_a_file():
    "Results are JSON, checkpoints are read with `weights_only`, arrays without pickle"
    import superconv_fastai
    bad = []
    for f in sorted(Path(superconv_fastai.__file__).parent.rglob('*.py')):
        for i,line in enumerate(f.read_text().splitlines(), 1):
            if (
                re.search(
                    r'\b(pickle|dill|shelve|marshal|joblib|yaml)\.(load|loads|Unpickler|open)\b|read_pickle|'
                    r'load_learner|allow_pickle\s*=\s*True|(?<![.\w])(eval|exec)\(',
                    line,
                )
                and 'cloudpickle.loads(blob)' not in line
            ):
                bad.append((f.name, i, line))
            if (
                re.search(r'\btorch\.load\(', line)
                and 'weights_only=True' not in line
                or re.search(r'\b(np|numpy)\.load\(', line)
                and 'allow_pickle=False' not in line
            ):
                bad.append((f.name, i, line))
            if re.search(r'weights_only\s*=\s*False|__import__\(|os\.system|shell\s*=\s*True', line):
                bad.append((f.name, i, line))
    assert not bad, bad # cloudpickle.loads: a blob that this process sent to its own workers

nasty = ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '"><b>', '../../../etc/passwd', '/etc/passwd',
         'a\nb', '\x1b[31mred', '%s%n{0}', '$x_1$ \\frac{', '$\\frac{$', 'n'*10_000, '\u202eabc', '\ud800']

@pytest.mark.parametrize('name', nasty, ids=range(len(nasty)))
def test_hostile_names_do_no_harm(name, tmp_path):
    "In a file that is otherwise right: names with HTML, paths, control characters, markup of figures"
    compare_fits(small, dict(a=plain), 1, 2, progress=False).save(f := tmp_path/'c')
    head,*rows = f.read_text().splitlines()
    new = [json.dumps({**json.loads(r), 'key':[name, 1, i], 'metric':name, 'note':name, 'fit':name,
                       'measured':{name:1.}}) for i,r in enumerate(rows)]
    f.write_text('\n'.join([head, *new])+'\n')
    before = sorted(os.listdir(tmp_path))
    try: c = Comparison.load(f)
    except ValueError as e:
        assert str(e).startswith('path=')
        return
    html,text = c._repr_html_(),repr(c)
    assert not re.search('<(script|img|b>)', html.replace('<b>', '', 1)) and c.arms==[name]
    c.table()
    c.ends
    c.steps_to(.5)
    c.plot()
    plt.close('all')
    c.save(tmp_path/'d')
    assert Comparison.load(tmp_path/'d').runs.equals(c.runs) and sorted(os.listdir(tmp_path))==sorted([*before, 'd'])

@pytest.mark.parametrize('value', [1e308, -1e308, 10**400, 1e-320, 2**53, 2**63, 10**30, -0., True, '1', None, [1], {},
                                   'x'*10**6], ids=lambda v: repr(v)[:12])
@pytest.mark.parametrize('field', ['step','train_loss','metric','lr','seconds','lrs','weights','n_epoch','seed'])
def test_huge_numbers_do_no_harm(field, value, tmp_path):
    compare_fits(small, dict(a=plain), 1, 2, progress=False).save(f := tmp_path/'c')
    head,first_,second = f.read_text().splitlines()
    row = json.loads(first_)
    columns = 'step train_loss valid_loss metric lr seconds'.split()
    if field in columns: row['epochs'][0][columns.index(field)] = value
    elif field=='lrs': row['lrs'][0] = value
    elif field=='weights': row['weights'] = value
    else: row['key'][1 if field=='n_epoch' else 2] = value
    f.write_text('\n'.join([head, json.dumps(row), second])+'\n')
    try: c = Comparison.load(f)
    except ValueError as e:
        assert str(e).startswith('path=')
        return
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        repr(c)
        c._repr_html_()
        c.table()
        c.steps_to(.5)
        c.speedup(None, .5)
        c.runs
        c.ends
        c.plot()
        plt.close('all')
