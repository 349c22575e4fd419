"""Wall time of `lr_range_test`, held-out evaluation included, against `lr_find` for the same number of steps.

Alternating, with the defaults and with 200 steps, 20 evaluations and 200 items. Writes results/range_test.json. About three minutes."""
import argparse, statistics, time, warnings
import torch
from fastai.basics import *
from fastai.callback.all import *
from superconv_fastai.all import *
from common import save_results

def convnet(): return nn.Sequential(nn.Conv2d(1,16,3,1,1,bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16,32,3,2,1,bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                                    nn.Conv2d(32,32,3,1,1,bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32,10))
def mlp(): return nn.Sequential(nn.Flatten(), nn.Linear(64,100), nn.ReLU(), nn.Linear(100,10))

def seconds(f):
    start = time.perf_counter(); f()
    return time.perf_counter()-start

def ratio(net, repeats, **kwargs):
    set_seed(0)
    learn = Learner(digits_dls(device='cpu'), net(), loss_func=CrossEntropyLossFlat(), opt_func=partial(SGD, mom=.9), metrics=accuracy)
    test,find,steps = [],[],200
    with learn.no_bar():
        for i in range(repeats+1): # the first pair warms up
            t = seconds(lambda: learn.lr_range_test(lr_max=1., show_plot=False, stop_div=False, **kwargs))
            f = seconds(lambda: learn.lr_find(start_lr=1e-5, end_lr=1., num_it=steps, stop_div=False, show_plot=False, suggest_funcs=(SuggestionMethod.Valley,)))
            if i: test.append(t); find.append(f)
    return dict(lr_range_test_s=round(statistics.median(test), 3), lr_find_s=round(statistics.median(find), 3), ratio=round(statistics.median(a/b for a,b in zip(test, find)), 3),
                ratios=[round(a/b, 3) for a,b in zip(test, find)])

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeats', type=int, default=9)
    args = p.parse_args()
    warnings.filterwarnings('ignore')
    torch.set_num_threads(1)
    res = {}
    for name,net in dict(convnet=convnet, mlp=mlp).items():
        for how,kw in dict(defaults={}, given=dict(n_steps=200, n_evals=20, n_valid=200)).items():
            res[f'{name}, {how}'] = row = ratio(net, args.repeats, **kw)
            print(f"{name:8s} {how:9s} lr_range_test {row['lr_range_test_s']:.2f} s   lr_find {row['lr_find_s']:.2f} s   ratio {row['ratio']:.2f}", flush=True)
    save_results('range_test', dict(steps=200, bound=1.5, rows=res))
