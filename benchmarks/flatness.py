"""Does a cycle with a large learning rate end in flatter minima that generalise better? At equal training loss.

    SUPERCONV_DATA=/path/to/data python benchmarks/flatness.py [--log FILE] [--tasks digits,plain] [--quick]

Per seed four arms train from the same weights: `fit_superconv` with a large LR, the same cycle with a small LR in
four times as many epochs, multistep in three times as many, and a constant small LR in eight times as many. Every
four steps the loss over the whole training set is measured (evaluation mode, no augmentation). When it first falls to
a level, and at the end of the run:

- loss and accuracy of the training and the test set;
- the largest eigenvalue of the Hessian of the training loss (curvlinops, Lanczos) over a fixed subset of training
  images, in evaluation mode. With BatchNorm a layer's weights can be scaled without changing the network, and the
  eigenvalue changes with the scale squared; so also
- the same in relative coordinates: weights as multiples of the norm of their tensor, where a scale has no effect.

Weight decay is 0, so that the LR alone differs: fastai's decay takes lr x wd of a weight in each step. 'digits/wd' is
digits with 0.01, 'plain' the network for digits without BatchNorm. Each finished run is a line of the log;
results/flatness.json has them all.
"""
import argparse
from scipy.sparse.linalg import LinearOperator, eigsh
from small import *
from superconv_fastai.runs import RunLog, seed_all

def top_eigenvalues(model, x, y):
    "Largest eigenvalue of the Hessian of the mean loss, in evaluation mode, and the largest in relative coordinates"
    from curvlinops import HessianLinearOperator
    ps = [p for p in model.parameters() if p.requires_grad]
    H = HessianLinearOperator(model.eval(), nn.CrossEntropyLoss(), ps, [(x,y)], check_deterministic=False).to_scipy()
    scale = np.concatenate([np.full(p.numel(), float(p.detach().norm()), dtype=np.float32) for p in ps])
    relative = LinearOperator(H.shape, matvec=lambda v: scale*(H@(scale*v.ravel())), dtype=H.dtype)
    start = np.random.RandomState(0).randn(H.shape[0]).astype(np.float32)
    how = dict(k=1, which='LA', tol=1e-2, v0=start, return_eigenvectors=False)
    return tuple(float(eigsh(o, **how)[0]) for o in (H, relative))

def scores(model, x, y):
    "Mean loss and accuracy, in evaluation mode"
    model.eval()
    with torch.no_grad(): out = torch.cat([model(b) for b in x.split(1000)])
    model.train()
    return float(F.cross_entropy(out, y)), float((out.argmax(1)==y).float().mean())

class Watch(Callback):
    "Scores after each epoch; everything when the training loss first falls to each of `levels`"
    run_valid = False
    def __init__(self, train, test, n_eig, levels):
        self.train_set,self.test_set,self.n_eig,self.levels = train,test,n_eig,sorted(levels)
        self.curve,self.at = [],{}

    def look(self):
        (a,acc_a),(b,acc_b) = (scores(self.learn.model, *d) for d in (self.train_set,self.test_set))
        return dict(train_loss=a, test_loss=b, train_accuracy=acc_a, test_accuracy=acc_b)

    def flat(self):
        l,r = top_eigenvalues(self.learn.model, *(o[:self.n_eig] for o in self.train_set))
        self.learn.model.train()
        norm = float(sum(p.detach().norm()**2 for p in self.learn.model.parameters())**.5)
        return dict(**self.look(), sharpness=l, relative=r, norm=norm, lr=self.learn.opt.hypers[-1]['lr'])

    def after_batch(self):
        if not self.levels or self.learn.iter%4!=3: return
        if scores(self.learn.model, *self.train_set)[0]>self.levels[-1]: return
        o = dict(step=self.learn.train_iter, **self.flat())
        while self.levels and o['train_loss']<=self.levels[-1]: self.at[f'{self.levels.pop():g}'] = o

    def after_train(self):
        self.curve.append([round(v, 5) if math.isfinite(v) else None for v in self.look().values()])

def run(task, arm, seed):
    "Train one arm"
    t = tasks[task]
    fit,n = t['arms'][arm]
    seed_all(seed)
    learn = t['learner'](seed)
    learn.remove_cb(ProgressCallback)
    learn.logger,learn.create_mbar = noop,False
    train,test = (tuple(dl.after_batch(dl.dataset.tensors)) for dl in learn.dls.loaders) # no augmentation
    seed_all(seed, learn.dls)
    cb = Watch(train, test, t['n_eig'], t['levels'])
    learn.add_cb(cb)
    learn._do_epoch_validate = noop # the callback does it
    fit(learn, n)
    ok = all(p.isfinite().all() for p in learn.model.parameters())
    return dict(at=cb.at, end=dict(step=learn.train_iter, **cb.flat()) if ok else None, path=cb.curve)

def cycle(lr): return lambda learn, n: learn.fit_superconv(n, lr)
def steps(lr): return lambda learn, n: fit_multistep(learn, n, lr)
def constant(lr): return lambda learn, n: learn.fit(n, lr)

def arms_of(large, small, lr, n):
    "Name to fit, LR and epochs"
    return {'cycle, large LR': (cycle(large), n), 'cycle, small LR': (cycle(small), 4*n), 'multistep': (steps(lr), 3*n),
            'constant, small LR': (constant(small/2), 8*n)}

digits_arms,levels = arms_of(1., .03, .1, 15),[.03,.01]
def small_fashion(seed): return fashion_learner('test', seed, n_train=2000, bs=64, wd=0., width=8)
tasks = {'digits': dict(learner=lambda s: digits_learner('test', s, wd=0.), arms=digits_arms, levels=levels, n_eig=500),
         'plain': dict(learner=lambda s: digits_learner('test', s, wd=0., bn=False), arms=arms_of(.3, .01, .03, 15),
                       levels=levels, n_eig=500),
         'digits/wd': dict(learner=lambda s: digits_learner('test', s, wd=.01), arms=digits_arms, levels=levels,
                           n_eig=500),
         'fashion': dict(learner=small_fashion, arms=arms_of(1., .03, .1, 12), levels=[.2,.1], n_eig=500)}

def say(key, r):
    shown = 'step','train_loss','test_loss','sharpness','relative','norm'
    looks = [{k:f'{o[k]:.4g}' for k in shown} for o in (*r['at'].values(), r['end']) if o]
    print(time.strftime('%H:%M:%S'), *key, *looks, flush=True)

def save(runs):
    "A line of text for the path of each run"
    def text(v): return '' if v is None else f'{v:.4g}'
    def row(task, arm, seed, r):
        path = ' '.join(','.join(map(text, o)) for o in r['path'])
        return dict(task=task, arm=arm, seed=seed, at=r['at'], end=r['end'], path=path)
    def about(t): return dict(levels=t['levels'], n_eig=t['n_eig'], epochs={k:n for k,(_,n) in t['arms'].items()})
    path = 'train_loss, test_loss, train_accuracy, test_accuracy after each epoch'
    save_results('flatness', dict(path=path, tasks={k:about(t) for k,t in tasks.items()},
                                  runs=[row(*k, r) for k,r in runs.items()]))

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--log', default=str(results/'flatness.jsonl'))
    ap.add_argument('--tasks', default=','.join(tasks))
    ap.add_argument('--seeds', type=int, default=5)
    ap.add_argument('--quick', action='store_true', help='one seed of digits, one epoch, no files: does it run?')
    a = ap.parse_args()
    quiet_start()
    if a.quick:
        tasks['digits'].update(arms={k:(f,1) for k,(f,_) in digits_arms.items()}, levels=[1.5,1.])
        return print(*(run('digits', arm, 0) for arm in list(digits_arms)[:2]), sep='\n')
    results.mkdir(exist_ok=True)
    with RunLog('study', a.log, dict(study='flatness')) as log:
        for task in a.tasks.split(','):
            for key in [(task,arm,seed) for seed in range(a.seeds) for arm in tasks[task]['arms']]:
                if key in log.runs: continue
                log.add(key, run(*key))
                say(key, log.runs[key])
            if log.runs: save(log.runs) # after each task

if __name__=='__main__': main()
