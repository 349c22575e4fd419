"""Does a cycle with a large learning rate end in flatter minima that generalise better? At equal training loss.

    SUPERCONV_DATA=/path/to/data python benchmarks/flatness.py [--log flatness.jsonl] [--tasks digits,digits/wd,plain,fashion] [--quick]

Per seed: `fit_superconv` with a large LR trains first, and the training loss at its end is the level. The others start from the same weights and
train until they get there, looked at after each epoch: the same cycle with a small LR (a longer one), multistep with its LR, and a constant
small LR. At that epoch, and at the end of each run, of the whole training set and the test set:

- loss and accuracy, both in evaluation mode without augmentation, and their gaps;
- the largest eigenvalue of the Hessian of the training loss (curvlinops, Lanczos) over a fixed subset of training images, in evaluation mode.
  With BatchNorm a layer's weights can be scaled without changing the network, and the eigenvalue changes with the scale squared; so also
- the same in relative coordinates: weights as multiples of the norm of their tensor, where a scale has no effect.

Weight decay is 0, so that the LR alone differs: fastai's decay takes lr x wd of a weight in each step; `--tasks digits/wd` is digits with 0.01.
'plain' is the network for digits without BatchNorm. Each finished run is a line of the log; results/flatness.json has them all.
"""
import argparse
from scipy.sparse.linalg import LinearOperator, eigsh
from small import *
from superconv_fastai.runs import RunLog, read_log, seed_all
from common import save_results

def top_eigenvalues(model, x, y):
    "Largest eigenvalue of the Hessian of the mean loss on `x`, `y`, in evaluation mode, and the largest in relative coordinates"
    from curvlinops import HessianLinearOperator
    ps = [p for p in model.parameters() if p.requires_grad]
    H = HessianLinearOperator(model.eval(), nn.CrossEntropyLoss(), ps, [(x,y)], check_deterministic=False).to_scipy()
    scale = np.concatenate([np.full(p.numel(), float(p.detach().norm()), dtype=np.float32) for p in ps])
    relative = LinearOperator(H.shape, matvec=lambda v: scale*(H@(scale*v.ravel())), dtype=H.dtype)
    start = np.random.RandomState(0).randn(H.shape[0]).astype(np.float32)
    return tuple(float(eigsh(o, k=1, which='LA', tol=1e-2, v0=start, return_eigenvectors=False)[0]) for o in (H, relative))

def scores(model, x, y):
    "Mean loss and accuracy, in evaluation mode"
    model.eval()
    with torch.no_grad(): out = torch.cat([model(b) for b in x.split(1000)])
    return float(F.cross_entropy(out, y)), float((out.argmax(1)==y).float().mean())

class Watch(Callback):
    "Scores after each epoch; with a `level`, eigenvalues at the first epoch whose training loss is at most that"
    run_valid = False
    def __init__(self, train, test, n_eig, level=None): self.sets,self.n_eig,self.level,self.curve,self.at_level = (train,test),n_eig,level,[],None
    def look(self):
        (a,acc_a),(b,acc_b) = (scores(self.learn.model, *d) for d in self.sets)
        return dict(train_loss=a, test_loss=b, train_accuracy=acc_a, test_accuracy=acc_b)
    def flat(self):
        x,y = self.sets[0]
        l,r = top_eigenvalues(self.learn.model, x[:self.n_eig], y[:self.n_eig])
        return dict(sharpness=l, relative=r, norm=float(sum(p.detach().norm()**2 for p in self.learn.model.parameters())**.5))
    def after_train(self):
        o = self.look()
        self.curve.append([round(v, 5) if math.isfinite(v) else None for v in o.values()])
        if self.level is not None and self.at_level is None and o['train_loss']<=self.level: self.at_level = dict(epoch=self.learn.epoch+1, **o, **self.flat())
        self.learn.model.train()

def run(task, arm, seed, level):
    "Train one arm; `level` is the training loss to stop and look at"
    t = tasks[task]
    fit,n = t['arms'][arm]
    seed_all(seed)
    learn = t['learner'](seed)
    learn.remove_cb(ProgressCallback)
    learn.logger,learn.create_mbar = noop,False
    train,test = (tuple(dl.after_batch(dl.dataset.tensors)) for dl in learn.dls.loaders) # no augmentation
    seed_all(seed, learn.dls)
    cb = Watch(train, test, t['n_eig'], level)
    learn.add_cb(cb)
    learn.validate = noop
    learn._do_epoch_validate = noop # scored by the callback
    fit(learn, n)
    ok = all(p.isfinite().all() for p in learn.model.parameters())
    end = dict(epoch=n, **cb.look(), **cb.flat()) if ok else None
    return dict(level=level, at_level=cb.at_level, end=end, path=cb.curve)

def cycle(lr): return lambda learn, n: learn.fit_superconv(n, lr)
def steps(lr): return lambda learn, n: fit_multistep(learn, n, lr)
def constant(lr): return lambda learn, n: learn.fit(n, lr)

def set_of(large, small, lr, n):
    "The arms: name to (fit, epochs). The first sets the level; the others have more epochs to get there"
    return {'cycle, large LR': (cycle(large), n), 'cycle, small LR': (cycle(small), 4*n), 'multistep': (steps(lr), 3*n), 'constant, small LR': (constant(small/2), 8*n)}

tasks = {'digits': dict(learner=lambda s: digits_learner('test', s, wd=0.), arms=set_of(1., .03, .1, 15), n_eig=500),
         'digits/wd': dict(learner=lambda s: digits_learner('test', s, wd=.01), arms=set_of(1., .03, .1, 15), n_eig=500),
         'plain': dict(learner=lambda s: digits_learner('test', s, wd=0., bn=False), arms=set_of(.3, .01, .03, 15), n_eig=500),
         'fashion': dict(learner=lambda s: fashion_learner('test', s, n_train=2000, bs=64, wd=0., width=8), arms=set_of(1., .03, .1, 12), n_eig=500)}

def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--log', default=str(results/'flatness.jsonl')); ap.add_argument('--tasks', default=','.join(tasks)); ap.add_argument('--seeds', type=int, default=5)
    ap.add_argument('--quick', action='store_true', help='one seed of digits, one epoch, no files: does it run?')
    a = ap.parse_args()
    quiet_start()
    if a.quick:
        tasks['digits']['arms'] = {k:(f,1) for k,(f,_) in tasks['digits']['arms'].items()}
        return print(*(run('digits', arm, 0, 1e9) for arm in tasks['digits']['arms']), sep='\n')
    results.mkdir(exist_ok=True)
    with RunLog('study', a.log, dict(study='flatness')) as log:
        for task in a.tasks.split(','):
            for seed in range(a.seeds):
                for i,arm in enumerate(tasks[task]['arms']):
                    if i==0: first_arm = (task,arm,seed)
                    end = log.runs[first_arm]['end'] if i else None
                    if (task,arm,seed) not in log.runs: log.add((task,arm,seed), run(task, arm, seed, end and end['train_loss']))
                    r = log.runs[task,arm,seed]
                    print(time.strftime('%H:%M:%S'), task, arm, seed, r['level'], r['at_level'] or r['end'], flush=True)
        runs = log.runs
    save_results('flatness', dict(path='train_loss, test_loss, train_accuracy, test_accuracy after each epoch', arms={t:{k:n for k,(_,n) in v['arms'].items()} for t,v in tasks.items()},
                                  runs=[dict(task=t, arm=arm, seed=s, **r) for (t,arm,s),r in runs.items()]))

if __name__=='__main__': main()
